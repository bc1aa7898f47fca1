import assert from 'node:assert/strict';
import type { Chain } from '../../../../src/vmm/virtio/descriptor-chain.js';
import { type QueueProgress, SplitQueue } from '../../../../src/vmm/virtio/split-queue.js';
import { type DriverOptions, DriverTwin, type Request, VirtioRig } from './driver-twin.js';
import { PlainRam } from './plain-ram.js';
import { type SlowDevice, slowDevice } from './slow-device.js';

const asks = (...bytes: number[]): Request => ({ readable: [Uint8Array.from(bytes)], writable: [4] });

/** A driver and its device, started. */
class Pair {
  readonly rig: VirtioRig;
  readonly driver: DriverTwin;
  device!: SlowDevice;

  constructor(options: DriverOptions = {}) {
    this.rig = VirtioRig.start(
      slowDevice((device) => {
        this.device = device;
      }),
    );
    this.driver = new DriverTwin(this.rig, options);
    this.driver.start();
  }

  get ram() {
    return this.rig.ram.ram;
  }

  get queue() {
    return this.driver.queues[0]!;
  }

  /** Restores what is saved now into a new machine, runs it and returns its device. */
  restore(): SlowDevice {
    this.rig.pause();
    const saved = this.rig.save();
    let device!: SlowDevice;
    const rig = VirtioRig.restore(
      saved,
      slowDevice((made) => {
        device = made;
      }),
    );
    saved.ram.close();
    this.driver.moveTo(rig);
    rig.resume();
    return device;
  }
}

describe('SplitQueue', () => {
  const pairs: Pair[] = [];
  const pair = (options?: DriverOptions): Pair => {
    const made = new Pair(options);
    pairs.push(made);
    return made;
  };
  afterEach(() => {
    for (const { rig, driver } of pairs.splice(0)) {
      rig.close();
      if (driver.rig !== rig) driver.rig.close();
    }
  });

  for (const options of [
    { eventIdx: false, indirect: false },
    { eventIdx: true, indirect: false },
    { eventIdx: false, indirect: true },
    { eventIdx: true, indirect: true },
  ]) {
    it(`gives each chain to the device once and answers it, also past 2^16 chains (${JSON.stringify(options)})`, () => {
      const { rig, driver, device } = pair({ ...options, queueSize: 8 });
      for (let i = 0; i < 66_000; i++) {
        driver.send(asks(i & 0xff, 1));
        rig.hear();
        if (device.unfinished.length < 3 && i < 65_990) continue;
        while (device.unfinished.length > 0) device.finish(device.unfinished.length - 1);
        for (const { request, written } of driver.collect())
          assert.equal(written.readUInt32LE(), request.readable[0]![0]! + 1);
        assert.deepEqual(driver.queues[0]!.waiting, []);
      }
      assert.equal(device.popped.length, 66_000);
      assert.deepEqual(rig.machine.events, []);
    });
  }

  it('completes chains in any order', () => {
    const { rig, driver, device } = pair();
    const heads = [1, 2, 3].map((n) => driver.send(asks(n)));
    rig.hear();
    device.finish(1);
    device.finish(1);
    device.finish(0);
    assert.deepEqual(
      driver.collect().map(({ head, written }) => [head, written.readUInt32LE()]),
      [
        [heads[1], 2],
        [heads[2], 3],
        [heads[0], 1],
      ],
    );
  });

  it('publishes several answers at once with one interrupt', () => {
    const { rig, driver, device } = pair();
    for (let n = 0; n < 3; n++) driver.send(asks(n));
    rig.hear();
    const { queue } = device.unfinished[0]!;
    for (let n = 0; n < 3; n++) device.complete();
    assert.equal(rig.takeInterrupt(), false, 'nothing is told before the flush');
    queue.flush();
    assert.equal(rig.machine.pulses.get(5), 1);
    assert.equal(driver.collect().length, 3);
  });

  it('interrupts with EVENT_IDX only when the index passes used_event', () => {
    const { rig, driver, device, queue, ram } = pair();
    for (let n = 0; n < 3; n++) driver.send(asks(n));
    rig.hear();
    ram.store16(queue.availRing + 4 + queue.size * 2, 1);
    device.finish();
    assert.equal(rig.takeInterrupt(), false);
    device.finish();
    assert.equal(rig.takeInterrupt(), true);
    device.finish();
    assert.equal(rig.takeInterrupt(), false);
  });

  it('interrupts without EVENT_IDX unless the driver sets NO_INTERRUPT', () => {
    const { rig, driver, device, queue, ram } = pair({ eventIdx: false });
    for (let n = 0; n < 2; n++) driver.send(asks(n));
    rig.hear();
    ram.store16(queue.availRing, 1);
    device.finish();
    assert.equal(rig.takeInterrupt(), false);
    ram.store16(queue.availRing, 0);
    device.finish();
    assert.equal(rig.takeInterrupt(), true);
  });

  for (const eventIdx of [true, false]) {
    it(`is told of the first chain after it was empty, ${eventIdx ? 'with' : 'without'} EVENT_IDX`, () => {
      const { rig, driver, device, queue } = pair({ eventIdx });
      for (let n = 0; n < 20; n++) {
        queue.offer(asks(n));
        assert.equal(queue.wantsKick(), true);
        queue.kick();
        rig.hear();
        device.finish();
        assert.equal(driver.collect().length, 1);
      }
    });
  }

  it('keeps the addresses of its rings until it is stopped', () => {
    const { rig, driver, device } = pair();
    rig.write(0x030, 0);
    rig.write(0x080, 0x40);
    rig.write(0x038, 2);
    driver.send(asks(7));
    rig.hear();
    device.finish();
    assert.equal(driver.collect()[0]!.written.readUInt32LE(), 7);
  });

  it('is stopped when nothing is in flight, and answers nothing after that', () => {
    const { rig, driver, device } = pair();
    driver.send(asks(1));
    rig.hear();
    rig.write(0x030, 0);
    rig.write(0x044, 0);
    assert.equal(rig.read(0x044), 1, 'a request is in flight');
    driver.send(asks(2));
    rig.hear();
    device.finish();
    assert.equal(rig.read(0x044), 0);
    assert.deepEqual(driver.collect(), []);
    assert.equal(device.popped.length, 1);
  });

  it('is saved as stopped when it is being stopped', () => {
    const made = pair();
    made.driver.send(asks(1));
    made.rig.hear();
    made.rig.write(0x030, 0);
    made.rig.write(0x044, 0);
    const device = made.restore();
    assert.deepEqual(device.popped, []);
    assert.equal(made.driver.rig.read(0x044), 0);
  });

  describe('while its machine is paused', () => {
    it('gives nothing to the device, and gives it afterwards without another doorbell', () => {
      const { rig, driver, device } = pair();
      rig.pause();
      driver.send(asks(1));
      rig.hear();
      assert.equal(device.popped.length, 0);
      rig.resume();
      device.finish();
      assert.equal(driver.collect().length, 1);
    });

    it('changes nothing in memory when a request ends, and publishes it afterwards', () => {
      const { rig, driver, device, queue } = pair();
      driver.send(asks(3));
      rig.hear();
      rig.pause();
      const before = rig.ram.bytes(queue.usedRing, 256);
      device.finish();
      assert.deepEqual(rig.ram.bytes(queue.usedRing, 256), before);
      assert.equal(rig.takeInterrupt(), false);
      rig.resume();
      assert.equal(driver.collect()[0]!.written.readUInt32LE(), 3);
    });

    it('publishes what ends before it is frozen', () => {
      const { rig, driver, device } = pair();
      driver.send(asks(3));
      rig.hear();
      rig.device.pausable!.suspend();
      assert.equal(rig.device.pausable!.isIdle, false);
      device.finish();
      assert.equal(rig.device.pausable!.isIdle, true);
      assert.equal(driver.collect().length, 1);
    });

    it('does not execute a request twice when the same machine resumes', () => {
      const { rig, driver, device } = pair();
      driver.send(asks(3));
      rig.hear();
      rig.pause();
      rig.save().ram.close();
      rig.resume();
      assert.equal(device.popped.length, 1);
      device.finish();
      assert.equal(driver.collect().length, 1);
    });
  });

  describe('after a restore', () => {
    it('gives the chains in flight again, first and in order, then the others', () => {
      const made = pair();
      const { rig, driver, device } = made;
      const heads = [1, 2, 3].map((n) => driver.send(asks(n)));
      rig.hear();
      device.finish(1);
      driver.collect();
      rig.pause();
      heads.push(driver.send(asks(4)));
      const restored = made.restore();
      assert.deepEqual(restored.popped, [heads[0], heads[2], heads[3]]);
      while (restored.unfinished.length > 0) restored.finish();
      assert.deepEqual(
        driver.collect().map(({ written }) => written.readUInt32LE()),
        [1, 3, 4],
      );
    });

    it('saves the same chains in flight when it is saved again before it runs', () => {
      const { rig, driver } = pair();
      const heads = [1, 2].map((n) => driver.send(asks(n)));
      rig.hear();
      rig.pause();
      const saved = rig.save();
      const paused = VirtioRig.restore(saved);
      const again = paused.save();
      const state = again.state as unknown as { core: { queues: { heads: number[] }[] } };
      assert.deepEqual(state.core.queues[0]!.heads, heads);
      for (const { ram } of [saved, again, paused]) ram.close();
    });

    it('counts a used entry that was not published as not written', () => {
      const made = pair();
      const { rig, driver, device } = made;
      driver.send(asks(9));
      rig.hear();
      device.complete();
      // A save in the middle: neither suspended nor flushed.
      const saved = rig.save();
      const restored = VirtioRig.restore(
        saved,
        slowDevice((again) => {
          made.device = again;
        }),
      );
      saved.ram.close();
      driver.moveTo(restored);
      restored.resume();
      made.device.finish();
      assert.equal(driver.collect().length, 1);
    });

    // Firecracker issue 5554, Cloud Hypervisor issue 8004.
    it('hears of a chain whose doorbell was rung and not heard', () => {
      const made = pair();
      made.driver.send(asks(1));
      const restored = made.restore();
      assert.equal(restored.popped.length, 1, 'the queue counts as notified');
    });

    it('tells the driver of a used entry whose interrupt was lost', () => {
      const made = pair();
      const { rig, driver, device } = made;
      driver.send(asks(1));
      rig.hear();
      device.finish();
      assert.equal(rig.takeInterrupt(), true, 'the interrupt that is lost');
      // With EVENT_IDX the device owes the driver nothing more.
      made.restore();
      assert.equal(driver.collect().length, 1, 'the driver is interrupted again');
    });

    it('asks for a doorbell anew when the index it had asked with was lost', () => {
      for (const eventIdx of [true, false]) {
        const made = pair({ eventIdx });
        const { rig, driver, queue, ram } = made;
        driver.send(asks(1));
        rig.hear();
        rig.pause();
        // As if the save had come before the device asked.
        if (eventIdx) ram.store16(queue.usedRing + 4 + queue.size * 8, 0x8000);
        else ram.store16(queue.usedRing, 1);
        made.restore();
        queue.offer(asks(2));
        assert.equal(queue.wantsKick(), true);
      }
    });

    it('asks for a doorbell although its device takes nothing yet', () => {
      for (const eventIdx of [true, false]) {
        const made = pair({ eventIdx });
        const { rig, driver, queue, ram } = made;
        rig.pause();
        if (eventIdx) ram.store16(queue.usedRing + 4 + queue.size * 8, 0x8000);
        else ram.store16(queue.usedRing, 1);
        const saved = rig.save();
        const idle = slowDevice((device) => {
          device.notify = () => {};
        });
        const restored = VirtioRig.restore(saved, idle);
        saved.ram.close();
        driver.moveTo(restored);
        restored.resume();
        queue.offer(asks(2));
        assert.equal(queue.wantsKick(), true);
      }
    });
  });

  describe('whose device puts chains back', () => {
    const SETUP = { size: 4, descriptorTable: 0n, availRing: 0x100n, usedRing: 0x200n };
    const FEATURES = { indirect: false, eventIdx: false };
    let memory: PlainRam;
    let queue: SplitQueue;
    const problems: string[] = [];
    beforeEach(() => {
      memory = new PlainRam([{ gpa: 0, sizeBytes: 8192 }]);
      problems.length = 0;
      queue = new SplitQueue({
        memory: memory.ram,
        interrupt: () => {},
        violated: (problem) => problems.push(problem),
      });
      for (let i = 0; i < 4; i++) {
        const descriptor = Buffer.alloc(16);
        descriptor.writeBigUInt64LE(4096n + BigInt(i) * 16n, 0);
        descriptor.writeUInt32LE(16, 8);
        memory.ram.write(i * 16, descriptor);
        memory.ram.store16(0x104 + i * 2, 3 - i);
      }
      memory.ram.store16(0x102, 4);
    });
    afterEach(() => memory.close());

    const pop = (count: number): Chain[] => Array.from({ length: count }, () => queue.pop()!);
    const heads = (chains: readonly (Chain | null)[]): (number | undefined)[] =>
      chains.map((chain) => chain?.head);

    it('gives them again in their order, and saves none of them as in flight', () => {
      queue.start(SETUP, FEATURES);
      queue.resume();
      const chains = pop(3);
      queue.complete(chains[0]!.head, 0);
      queue.putBack(chains.slice(1));
      queue.flush();
      assert.deepEqual(queue.save(), { ready: true, lastAvail: 1, usedIndex: 1, heads: [] });
      assert.deepEqual(heads(pop(4)), [2, 1, 0, undefined]);
      assert.deepEqual(problems, []);
    });

    it('gives those first that were in flight when it was saved', () => {
      const progress: QueueProgress = { ready: true, lastAvail: 2, usedIndex: 0, heads: [3, 2] };
      queue.restore(SETUP, FEATURES, progress);
      queue.resume();
      const chains = pop(3);
      assert.deepEqual(heads(chains), [3, 2, 1]);
      queue.putBack(chains.slice(1));
      assert.deepEqual(queue.save(), { ready: true, lastAvail: 2, usedIndex: 0, heads: [3, 2] });
      assert.deepEqual(heads(pop(3)), [2, 1, 0]);
    });
  });
});
