import assert from 'node:assert/strict';
import { Register } from '../../../../src/vmm/virtio/mmio-transport.js';
import { DriverTwin, VirtioRig } from './driver-twin.js';
import { type SlowDevice, slowDevice } from './slow-device.js';

describe('MmioTransport', () => {
  let rig: VirtioRig;
  let device: SlowDevice;
  beforeEach(() => {
    rig = VirtioRig.start(
      slowDevice((made) => {
        device = made;
      }),
    );
  });
  afterEach(() => rig.close());

  const features = (): bigint => {
    rig.write(Register.deviceFeaturesSel, 0);
    const low = BigInt(rig.read(Register.deviceFeatures));
    rig.write(Register.deviceFeaturesSel, 1);
    return low | (BigInt(rig.read(Register.deviceFeatures)) << 32n);
  };

  /** Offers these features to the device and returns the status. */
  function accept(wanted: bigint): number {
    rig.write(Register.status, 0);
    rig.write(Register.status, 3);
    for (const word of [0, 1]) {
      rig.write(Register.driverFeaturesSel, word);
      rig.write(Register.driverFeatures, Number((wanted >> BigInt(32 * word)) & 0xffff_ffffn));
    }
    rig.write(Register.status, 11);
    return rig.read(Register.status);
  }

  it('says what it is', () => {
    assert.equal(rig.read(Register.magicValue), 0x74726976);
    assert.equal(rig.read(Register.version), 2, 'not the legacy interface');
    assert.equal(rig.read(Register.deviceId), 42);
    assert.equal(rig.read(Register.vendorId), 0x4e53564c);
    assert.equal(features(), (1n << 32n) | (1n << 29n) | (1n << 28n) | (1n << 3n));
    rig.write(Register.deviceFeaturesSel, 2);
    assert.equal(rig.read(Register.deviceFeatures), 0);
  });

  it('has no shared memory regions', () => {
    for (const id of [0, 1, 0xffff_ffff]) {
      rig.write(0x0ac, id);
      for (const register of [0x0b0, 0x0b4, 0x0b8, 0x0bc]) assert.equal(rig.read(register), 0xffff_ffff);
    }
  });

  it('accepts a subset of its features with VERSION_1', () => {
    assert.equal(accept(1n << 32n), 11);
    assert.equal(accept((1n << 32n) | (1n << 3n)), 11);
  });

  it('refuses a legacy driver and features that it did not offer', () => {
    assert.equal(accept(1n << 3n), 3);
    assert.equal(accept((1n << 32n) | (1n << 4n)), 3);
    assert.equal(accept((1n << 32n) | (1n << 40n)), 3);
  });

  it('keeps the features after FEATURES_OK', () => {
    accept(1n << 32n);
    rig.write(Register.driverFeaturesSel, 0);
    rig.write(Register.driverFeatures, 1 << 3);
    rig.write(Register.status, 15);
    assert.equal(device.acceptedFeatures, 1n << 32n);
  });

  it('is not started without FEATURES_OK', () => {
    rig.write(Register.status, 7);
    assert.equal(rig.read(Register.status), 3);
    assert.deepEqual(device.queues, []);
  });

  it('adds bits to the status and removes none', () => {
    accept(1n << 32n);
    rig.write(Register.status, 1);
    assert.equal(rig.read(Register.status), 11);
    rig.write(Register.status, 0x80);
    assert.equal(rig.read(Register.status), 0x8b, 'FAILED');
    rig.write(Register.status, 0x40);
    assert.equal(rig.read(Register.status), 0x8b, 'DEVICE_NEEDS_RESET is the device’s');
  });

  it('has the queues of its device', () => {
    const sizes = [0, 1, 2, 0xffff_ffff].map((index) => {
      rig.write(Register.queueSel, index);
      return rig.read(Register.queueNumMax);
    });
    assert.deepEqual(sizes, [64, 8, 0, 0]);
  });

  it('makes queues ready between FEATURES_OK and DRIVER_OK only', () => {
    const tryIt = (): number => {
      rig.write(Register.queueSel, 1);
      rig.write(Register.queueReady, 1);
      return rig.read(Register.queueReady);
    };
    assert.equal(tryIt(), 0);
    accept(1n << 32n);
    assert.equal(tryIt(), 1);
    accept(1n << 32n);
    rig.write(Register.status, 15);
    assert.equal(tryIt(), 0);
  });

  for (const size of [0, 3, 16, 0x8000_0008]) {
    it(`needs a reset when a queue of at most 8 gets a size of ${size}`, () => {
      accept(1n << 32n);
      rig.write(Register.queueSel, 1);
      rig.write(Register.queueNum, size);
      rig.write(Register.queueReady, 1);
      assert.equal(rig.read(Register.status) & 0x40, 0x40);
      assert.equal(rig.read(Register.queueReady), 0);
      assert.equal(rig.read(Register.interruptStatus), 0, 'no interrupt before DRIVER_OK');
      assert.equal(rig.machine.events.length, 1);
    });
  }

  for (const [what, low, high] of [
    ['descriptor table', Register.queueDescLow, Register.queueDescHigh],
    ['avail ring', Register.queueDriverLow, Register.queueDriverHigh],
    ['used ring', Register.queueDeviceLow, Register.queueDeviceHigh],
  ] as const) {
    it(`needs a reset when a ${what} is misaligned or outside RAM`, () => {
      for (const [lowValue, highValue] of [
        [1, 0],
        [0, 1],
        [0, 0xffff_ffff],
        [(8 << 20) - 4, 0],
      ] as const) {
        accept(1n << 32n);
        rig.write(Register.queueSel, 0);
        rig.write(low, lowValue);
        rig.write(high, highValue);
        rig.write(Register.queueReady, 1);
        assert.equal(rig.read(Register.status) & 0x40, 0x40);
      }
      assert.match(rig.machine.events[0]!, new RegExp(`driver put the ${what} at 0x1;`));
      assert.equal(rig.machine.events.length, 1, 'logged once');
    });
  }

  describe('with a started driver', () => {
    let driver: DriverTwin;
    beforeEach(() => {
      driver = new DriverTwin(rig);
      driver.start();
    });
    const request = { readable: [Uint8Array.of(5)], writable: [4] };

    it('keeps an interrupt until it is acknowledged', () => {
      driver.send(request);
      rig.hear();
      device.finish();
      assert.equal(rig.read(Register.interruptStatus), 1);
      rig.write(Register.interruptAck, 2);
      assert.equal(rig.read(Register.interruptStatus), 1);
      rig.write(Register.interruptAck, 0xffff_ffff);
      assert.equal(rig.read(Register.interruptStatus), 0);
    });

    it('is notified by the register as well as by the doorbell', () => {
      driver.send(request);
      rig.write(Register.queueNotify, 0);
      assert.equal(device.popped.length, 1);
      for (const index of [1, 2, 0xffff_ffff]) rig.write(Register.queueNotify, index);
    });

    it('needs a reset after a violation: interrupts, stops and logs once', () => {
      driver.queues[0]!.makeAvailable(99);
      rig.ring(0);
      rig.hear();
      assert.equal(rig.read(Register.status), 0x4f);
      assert.equal(rig.read(Register.interruptStatus), 2);
      assert.equal(rig.takeInterrupt(), true);
      assert.deepEqual(rig.machine.events, [
        "virtio device slow: the guest's driver offered descriptor 99 of 16; the device needs a reset",
      ]);
      driver.queues[1]!.offer(request);
      rig.ring(1);
      rig.hear();
      assert.equal(device.popped.length, 0, 'no queue is used');
      driver.start();
      driver.send(request);
      rig.hear();
      assert.equal(device.popped.length, 1, 'a reset mends it');
    });

    it('needs a reset when more chains are offered than the queue holds', () => {
      const queue = driver.queues[0]!;
      rig.ram.ram.store16(queue.availRing + 2, queue.size + 1);
      rig.ring(0);
      rig.hear();
      assert.match(rig.machine.events[0]!, /offered 17 chains in a queue of 16/);
    });

    it('needs a reset when a chain in flight is offered again', () => {
      const head = driver.send(request);
      rig.hear();
      driver.queues[0]!.makeAvailable(head);
      rig.ring(0);
      rig.hear();
      assert.match(rig.machine.events[0]!, /offered descriptor \d+ twice/);
      device.finish();
      assert.equal(rig.device.pausable!.isIdle, true);
    });

    it('gives up a chain in flight that has become a violation when it is restored', () => {
      driver.send(request);
      rig.hear();
      rig.pause();
      rig.ram.ram.write(driver.queues[0]!.descriptorTable, new Uint8Array(16 * 16));
      const saved = rig.save();
      const restored = VirtioRig.restore(saved);
      restored.resume();
      assert.equal(restored.read(Register.status) & 0x40, 0x40);
      assert.equal(restored.device.pausable!.isIdle, true);
      saved.ram.close();
      restored.close();
    });

    it('gives up its chains in flight when it is restored and needs a reset', () => {
      driver.send(request);
      rig.hear();
      driver.queues[0]!.makeAvailable(99);
      rig.ring(0);
      rig.hear();
      rig.pause();
      const saved = rig.save();
      let made!: SlowDevice;
      const restored = VirtioRig.restore(
        saved,
        slowDevice((each) => {
          made = each;
        }),
      );
      restored.resume();
      made.notify(0);
      assert.deepEqual(made.popped, []);
      assert.equal(restored.device.pausable!.isIdle, true);
      saved.ram.close();
      restored.close();
    });

    describe('being reset', () => {
      it('is reset at once when nothing is in flight', () => {
        rig.write(Register.status, 0);
        assert.equal(rig.read(Register.status), 0);
        assert.equal(rig.machine.heldAccesses, 0);
        rig.write(Register.queueSel, 0);
        assert.equal(rig.read(Register.queueReady), 0);
      });

      it('lets the guest wait until nothing is in flight, and publishes nothing', () => {
        driver.send(request);
        rig.hear();
        const { usedRing } = driver.queues[0]!;
        const before = rig.ram.bytes(usedRing, 64);
        rig.write(Register.status, 0);
        assert.equal(rig.machine.heldAccesses, 1);
        assert.notEqual(rig.read(Register.status), 0);
        rig.write(Register.status, 1);
        device.finish();
        assert.equal(rig.machine.heldAccesses, 0);
        assert.equal(rig.read(Register.status), 0);
        assert.deepEqual(rig.ram.bytes(usedRing, 64), before);
        assert.equal(rig.takeInterrupt(), false);
      });

      it('ignores what other processors write to the status meanwhile', () => {
        driver.send(request);
        rig.hear();
        rig.write(Register.status, 0);
        rig.write(Register.status, 0);
        rig.write(Register.status, 0x80);
        assert.equal(rig.machine.heldAccesses, 1, 'only the processor that reset it waits');
        assert.equal(rig.read(Register.status), 15);
        device.finish();
        assert.equal(rig.machine.heldAccesses, 0);
        assert.equal(rig.read(Register.status), 0);
      });

      it('is saved as reset', () => {
        driver.send(request);
        rig.hear();
        rig.write(Register.status, 0);
        const saved = rig.save();
        const restored = VirtioRig.restore(saved);
        restored.resume();
        assert.equal(restored.read(Register.status), 0);
        assert.equal(restored.takeInterrupt(), false);
        saved.ram.close();
        restored.close();
      });
    });

    it('interrupts for a changed configuration, with a new generation', () => {
      const before = rig.read(Register.configGeneration);
      device.link.configChanged();
      assert.equal(rig.read(Register.configGeneration), before + 1);
      assert.equal(rig.read(Register.interruptStatus), 2);
      assert.equal(rig.takeInterrupt(), true);
    });

    it('keeps selectors, generation and interrupt status over a restore', () => {
      device.link.configChanged();
      rig.write(Register.queueSel, 1);
      rig.write(Register.deviceFeaturesSel, 1);
      rig.pause();
      const saved = rig.save();
      const restored = VirtioRig.restore(saved);
      assert.equal(restored.read(Register.queueNumMax), 8);
      assert.equal(restored.read(Register.deviceFeatures), 1);
      assert.equal(restored.read(Register.configGeneration), 1);
      assert.equal(restored.read(Register.interruptStatus), 3, 'and every restored device interrupts');
      assert.equal(restored.takeInterrupt(), true);
      saved.ram.close();
      restored.close();
    });
  });

  it('has a configuration space of bytes, words and double words', () => {
    assert.equal(rig.read(Register.config, 1), 1);
    assert.equal(rig.read(Register.config + 1, 2), 0x0302);
    assert.equal(rig.read(Register.config + 2, 4), 0x06050403);
    assert.equal(rig.read(Register.config + 4, 4), 0x0605, 'zero beyond the end');
    assert.equal(rig.read(0xffc, 4), 0);
    rig.write(Register.config + 2, 0xbbaa, 2);
    assert.equal(rig.read(Register.config, 4), 0xbbaa0201);
    rig.write(Register.config + 4, 0xffff_ffff, 4);
    assert.equal(rig.read(Register.config + 4, 4), 0x0605, 'a write beyond the end is ignored');
  });

  it('ignores accesses to registers that are not 4 aligned bytes', () => {
    assert.equal(rig.read(Register.magicValue, 1), 0);
    assert.equal(rig.read(Register.magicValue, 2), 0);
    assert.equal(rig.read(Register.magicValue + 2, 4), 0);
    rig.write(Register.status, 1, 1);
    assert.equal(rig.read(Register.status), 0);
  });

  it('does not tell a driver that has not started of changes', () => {
    device.link.configChanged();
    device.link.fail('did nothing');
    assert.equal(rig.takeInterrupt(), false);
  });
});
