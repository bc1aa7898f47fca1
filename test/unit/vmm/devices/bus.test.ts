import assert from 'node:assert/strict';
import { Bus } from '../../../../src/vmm/devices/bus.js';
import type { AccessSize, Device, DeviceState, RegisterRange } from '../../../../src/vmm/devices/device.js';

/** Reads give the offset, in every byte; accesses are written down. */
class Probe implements Device {
  readonly log: string[] = [];
  readonly ranges: readonly RegisterRange[];
  readonly widthBytes: AccessSize;

  constructor(ranges: readonly RegisterRange[], widthBytes: AccessSize) {
    this.ranges = ranges;
    this.widthBytes = widthBytes;
  }

  read(offset: number, size: AccessSize): number {
    this.log.push(`r${size}@${offset}`);
    return (offset * 0x01010101) & (size === 4 ? -1 : 2 ** (8 * size) - 1);
  }

  write(offset: number, size: AccessSize, value: number): void {
    this.log.push(`w${size}@${offset}=${value.toString(16)}`);
  }

  save(): DeviceState {
    return { device: 'probe', version: 1 };
  }
}

const whole = (length: number): RegisterRange[] => [{ offset: 0, length }];

describe('Bus', () => {
  it('reads all ones and ignores writes where no device is', () => {
    const bus = new Bus();
    assert.equal(bus.read(0x80, 1), 0xff);
    assert.equal(bus.read(0x80, 2), 0xffff);
    assert.equal(bus.read(0x80, 4), 0xffff_ffff);
    bus.write(0x80, 4, 0x1234);
    bus.attach(0x100, new Probe(whole(4), 4));
    for (const address of [0xff, 0x104, 0, 0xffff]) assert.equal(bus.read(address, 1), 0xff);
  });

  it('finds each of many devices at its first and last address', () => {
    const bus = new Bus();
    const probes = [7, 3, 9, 0, 5, 1, 8, 2, 6, 4].map((i) => {
      const probe = new Probe(whole(8), 1);
      bus.attach(0x1000 + i * 0x10, probe);
      return { probe, base: 0x1000 + i * 0x10 };
    });
    for (const { probe, base } of probes) {
      bus.read(base, 1);
      bus.read(base + 7, 1);
      assert.deepEqual(probe.log, ['r1@0', 'r1@7']);
      assert.equal(bus.read(base + 8, 1), 0xff);
      assert.equal(bus.read(base - 1, 1), 0xff);
    }
  });

  it('finds devices beyond 32 bits', () => {
    const bus = new Bus();
    bus.attach(2 ** 40, new Probe(whole(0x1000), 4));
    assert.equal(bus.read(2 ** 40 + 8, 4), 0x08080808);
    assert.equal(bus.read(0 + 8, 4), 0xffff_ffff);
  });

  it('passes an access in one piece when the device is wide enough', () => {
    const bus = new Bus();
    const probe = new Probe(whole(8), 4);
    bus.attach(0x10, probe);
    assert.equal(bus.read(0x11, 4), 0x01010101);
    bus.write(0x12, 2, 0x1_ffff);
    bus.write(0x14, 4, 0xffff_fffe);
    assert.deepEqual(probe.log, ['r4@1', 'w2@2=ffff', 'w4@4=fffffffe']);
  });

  it('splits an access that is too wide into bytes, low to high', () => {
    const bus = new Bus();
    const probe = new Probe(whole(8), 1);
    bus.attach(0x10, probe);
    assert.equal(bus.read(0x12, 4), 0x05040302);
    bus.write(0x10, 2, 0xabcd);
    assert.deepEqual(probe.log, ['r1@2', 'r1@3', 'r1@4', 'r1@5', 'w1@0=cd', 'w1@1=ab']);
  });

  it('splits an access that crosses the start or end of a range', () => {
    const bus = new Bus();
    const probe = new Probe(whole(4), 4);
    bus.attach(0x10, probe);
    assert.equal(bus.read(0x12, 4), 0xffff_0302);
    assert.equal(bus.read(0x0e, 4), 0x0100_ffff);
    bus.write(0x0f, 2, 0xabcd);
    assert.deepEqual(probe.log, ['r1@2', 'r1@3', 'r1@0', 'r1@1', 'w1@0=ab']);
  });

  it('attaches a device with several ranges, with other devices between', () => {
    const bus = new Bus();
    const outer = new Probe(
      [
        { offset: 0, length: 1 },
        { offset: 4, length: 1 },
      ],
      1,
    );
    const inner = new Probe(whole(1), 1);
    bus.attach(0x60, outer);
    bus.attach(0x61, inner);
    bus.read(0x60, 1);
    bus.read(0x61, 1);
    bus.read(0x64, 1);
    assert.deepEqual([outer.log, inner.log], [['r1@0', 'r1@4'], ['r1@0']]);
  });

  it('asserts that no two devices claim one address', () => {
    const bus = new Bus();
    bus.attach(0x10, new Probe(whole(4), 1));
    for (const base of [0x0d, 0x10, 0x13]) assert.throws(() => bus.attach(base, new Probe(whole(4), 1)));
    bus.attach(0x0c, new Probe(whole(4), 1));
    bus.attach(0x14, new Probe(whole(4), 1));
  });

  it('splits a string access into items, little-endian', () => {
    const bus = new Bus();
    const probe = new Probe(whole(8), 4);
    bus.attach(0x10, probe);
    const data = Uint8Array.from([9, 1, 2, 3, 4, 5, 6, 7, 0x88, 9]);
    bus.writeItems(0x14, 4, 2, data, 1);
    bus.writeItems(0x14, 2, 1, data, 7);
    assert.deepEqual(probe.log, ['w4@4=4030201', 'w4@4=88070605', 'w2@4=8807']);
    bus.readItems(0x13, 2, 2, data, 2);
    assert.deepEqual([...data], [9, 1, 3, 3, 3, 3, 6, 7, 0x88, 9]);
    bus.readItems(0x80, 1, 3, data, 0);
    assert.deepEqual([...data.subarray(0, 4)], [0xff, 0xff, 0xff, 3]);
  });

  it('splits items of other sizes into accesses of 1, 2 and 4 bytes', () => {
    const bus = new Bus();
    const probe = new Probe(whole(16), 4);
    bus.attach(0x10, probe);
    const data = Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    bus.writeItems(0x10, 8, 1, data, 1);
    bus.readItems(0x12, 7, 1, data, 0);
    assert.deepEqual(probe.log, ['w4@0=5040302', 'w4@4=9080706', 'r4@2', 'r2@6', 'r1@8']);
    assert.deepEqual([...data], [2, 2, 2, 2, 6, 6, 8, 8, 9]);
    bus.readItems(0x8000, 8, 1, data, 1);
    assert.deepEqual([...data.subarray(1)], new Array(8).fill(0xff));
  });

  it('passes a string of bytes in one call to a device that has readBytes and writeBytes', () => {
    const bus = new Bus();
    const got: string[] = [];
    class Burst extends Probe {
      writeBytes(offset: number, data: Uint8Array, at: number, count: number): void {
        got.push(`w@${offset}=${[...data.subarray(at, at + count)].join()}`);
      }
      readBytes(offset: number, data: Uint8Array, at: number, count: number): void {
        data.fill(offset, at, at + count);
      }
    }
    const burst = new Burst(whole(8), 1);
    bus.attach(0x3f8, burst);
    const data = Uint8Array.from([1, 2, 3, 4]);
    bus.writeItems(0x3f8, 1, 3, data, 1);
    bus.readItems(0x3fd, 1, 2, data, 0);
    assert.deepEqual(got, ['w@0=2,3,4']);
    assert.deepEqual([...data], [5, 5, 3, 4]);
    bus.writeItems(0x3f8, 2, 1, data, 0);
    assert.deepEqual(burst.log, ['w1@0=5', 'w1@1=5']);
  });
});
