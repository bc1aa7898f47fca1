import assert from 'node:assert/strict';
import { DriverTwin, VirtioRig } from './driver-twin.js';
import { slowDevice } from './slow-device.js';

type Loose = { core: Record<string, unknown> & { queues: Record<string, unknown>[] } } & Record<
  string,
  unknown
>;

describe('the saved state of a virtio device', () => {
  /** The state of a device with a request in flight, changed. */
  function restore(change: (state: Loose) => void): VirtioRig {
    const rig = VirtioRig.start(slowDevice());
    const driver = new DriverTwin(rig);
    driver.start();
    driver.send({ readable: [Uint8Array.of(1)], writable: [4] });
    rig.hear();
    rig.pause();
    const saved = rig.save();
    rig.close();
    change(saved.state as unknown as Loose);
    try {
      return VirtioRig.restore(saved);
    } finally {
      saved.ram.close();
    }
  }

  it('is restored as it is', () => {
    const rig = restore(() => {});
    rig.resume();
    rig.close();
  });

  for (const [title, change, message] of [
    ['another version', (s) => (s.version = 2), /version is 2/],
    ['another device', (s) => (s.device = 'com1'), /device is not/],
    ['a status with unknown bits', (s) => (s.core.status = 0x1f), /core.status has unknown bits/],
    ['DRIVER_OK without FEATURES_OK', (s) => (s.core.status = 7), /DRIVER_OK without FEATURES_OK/],
    ['features that are not offered', (s) => (s.core.features = '0x1ffffffff'), /features 0x1ffffffff/],
    ['features without VERSION_1', (s) => (s.core.features = '0x0'), /features 0x0 are not offered/],
    ['features that are no number', (s) => (s.core.features = '0xg'), /core.features is not a hexadecimal/],
    ['an unknown interrupt', (s) => (s.core.interruptStatus = 4), /interruptStatus/],
    ['a queue less', (s) => s.core.queues.pop(), /it has 1 queues, not 2/],
    ['a head outside its queue', (s) => (s.core.queues[0]!.heads = [16]), /queues\[0\] is not the state of/],
    ['a head twice', (s) => (s.core.queues[0]!.heads = [1, 1]), /queues\[0\] is not the state of a queue/],
    [
      'heads of a queue that is not ready',
      (s) => (s.core.queues[0]!.ready = false),
      /not the state of a queue/,
    ],
    ['a size that is no power of 2', (s) => (s.core.queues[0]!.size = 17), /queues\[0\] is not the state of/],
    ['a size beyond the device’s', (s) => (s.core.queues[1]!.size = 64), /queue 1 has a size of 64/],
    ['an index of 17 bits', (s) => (s.core.queues[0]!.lastAvail = 0x1_0000), /lastAvail is not an integer/],
    [
      'a device’s own state of another version',
      (s) => (s.core.own = { device: 'slow', version: 9 }),
      /version is 9/,
    ],
    ['an unknown field', (s) => (s.core.colour = 1), /"colour" is not a known field/],
  ] as readonly (readonly [string, (state: Loose) => unknown, RegExp])[]) {
    it(`is refused with ${title}`, () => {
      assert.throws(() => restore(change), { message });
    });
  }

  it('leads to DEVICE_NEEDS_RESET when its rings are not in RAM', () => {
    const rig = restore((state) => {
      state.core.queues[0]!.usedRing = '0xfffffffffffffffc';
    });
    rig.resume();
    assert.equal(rig.read(0x070) & 0x40, 0x40);
    assert.match(rig.machine.events[0]!, /put the used ring at 0xfffffffffffffffc/);
    rig.close();
  });
});
