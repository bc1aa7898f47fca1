import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { closeMemory, createMemory, type MemoryHandle } from '../../../../src/native/memory.js';
import { Disk } from '../../../../src/vmm/disk/disk.js';
import { blocksOf, type DiskSetup, SECTOR_BYTES } from '../../../../src/vmm/disk/disk-setup.js';
import { SharedBits } from '../../../../src/vmm/memory/shared-bits.js';
import { type VirtioBlock, virtioBlock } from '../../../../src/vmm/virtio/block.js';
import type { VirtioDescriptor } from '../../../../src/vmm/virtio/virtio-device.js';
import { FakeIo } from '../disk/fake-io.js';
import { type Answer, DriverTwin, VirtioRig } from './driver-twin.js';

const { EIO } = constants.errno;
const SECTORS = 64;
const CONFIG = 0x100;
const Type = { in: 0, out: 1, flush: 4, getId: 8, discard: 11, writeZeroes: 13 } as const;
const [OK, IO_ERROR, UNSUPPORTED] = [0, 1, 2];
const ALL_FEATURES = (1n << 2n) | (1n << 6n) | (1n << 9n) | (1n << 10n) | (1n << 13n) | (1n << 14n);

describe('VirtioBlock', () => {
  let io: FakeIo;
  let fd: number;
  let zeros: MemoryHandle;
  let disk: Disk;
  let device: VirtioBlock;
  let rig: VirtioRig;
  let driver: DriverTwin;
  let stalls: string[];

  /** A device with its disk, on the image of the test. */
  function makeDescriptor(fields: Partial<DiskSetup> = {}): VirtioDescriptor {
    const setup: DiskSetup = {
      name: 'disk0',
      sizeBytes: SECTORS * SECTOR_BYTES,
      readOnly: false,
      onError: 'pause',
      base: { kind: 'file', fd },
      overlay: null,
      written: SharedBits.allocate(blocksOf(SECTORS * SECTOR_BYTES)),
      scratchDir: '/tmp',
      ...fields,
    };
    disk = new Disk(setup, {
      io,
      zeros: { memory: zeros, sizeBytes: 4096 },
      scratch: { openFile: () => io.addFile(Buffer.alloc(0)), closeFile: (each) => io.files.delete(each) },
    });
    const descriptor = virtioBlock({
      disk,
      onError: setup.onError,
      onStall: (problem) => stalls.push(problem),
    });
    const kept = (made: VirtioBlock): VirtioBlock => {
      device = made;
      return made;
    };
    return {
      ...descriptor,
      create: (parts, link) => kept(descriptor.create(parts, link)),
      restore: (parts, link, state) => kept(descriptor.restore(parts, link, state as never)),
    };
  }

  function start(fields: Partial<DiskSetup> = {}): void {
    rig?.close();
    rig = VirtioRig.start(makeDescriptor(fields));
    driver = new DriverTwin(rig, { queueSize: 64 });
    driver.start(fields.readOnly ? 1n << 5n : ALL_FEATURES);
  }

  beforeEach(() => {
    io = new FakeIo();
    fd = io.addFile(Buffer.from(Array.from({ length: SECTORS * SECTOR_BYTES }, (_, i) => (i >> 9) + 1)));
    zeros = createMemory(4096);
    stalls = [];
    start();
  });
  afterEach(() => {
    rig.close();
    closeMemory(zeros);
  });

  const header = (type: number, sector: number | bigint): Buffer => {
    const bytes = Buffer.alloc(16);
    bytes.writeUInt32LE(type, 0);
    bytes.writeBigUInt64LE(BigInt(sector), 8);
    return bytes;
  };
  const segment = (sector: number | bigint, sectors: number, flags = 0): Buffer => {
    const bytes = Buffer.alloc(16);
    bytes.writeBigUInt64LE(BigInt(sector), 0);
    bytes.writeUInt32LE(sectors, 8);
    bytes.writeUInt32LE(flags, 12);
    return bytes;
  };
  function send(readable: readonly Uint8Array[], ...writable: number[]): void {
    driver.send({ readable, writable });
    rig.hear();
  }
  function settle(): Answer[] {
    io.settle();
    device.publish();
    return driver.collect();
  }
  /** Sends a request that has its own status buffer, and returns data and status. */
  function ask(readable: readonly Uint8Array[], ...data: number[]): { data: Buffer; status: number } {
    send(readable, ...data, 1);
    const [answer, ...others] = settle();
    assert(answer, 'the request is answered');
    assert.equal(others.length, 0);
    const bytes = answer.buffers;
    return { data: bytes.subarray(0, -1), status: bytes.at(-1)! };
  }
  const file = (): Buffer => io.files.get(fd)!;
  const sector = (n: number): Buffer => file().subarray(n * SECTOR_BYTES, (n + 1) * SECTOR_BYTES);

  it('describes its disk', () => {
    assert.equal(rig.read(0x008), 2);
    assert.equal(rig.read(CONFIG), SECTORS);
    assert.equal(rig.read(CONFIG + 12), 254);
    assert.equal(rig.read(CONFIG + 20), 512);
    assert.equal(rig.read(CONFIG + 24, 1), 3, 'physical blocks have 2^3 sectors');
    assert.equal(rig.read(CONFIG + 26, 2), 8);
    assert.equal(rig.read(CONFIG + 44), 8);
    assert.equal(rig.read(CONFIG + 56, 1), 1);
  });

  it('reads into buffers of any length, and marks their pages', () => {
    const { data, status } = ask([header(Type.in, 3)], 700, 324);
    assert.equal(status, OK);
    assert(data.subarray(0, 512).every((byte) => byte === 4));
    assert(data.subarray(512).every((byte) => byte === 5));
    const words = new Int32Array(rig.ram.slots[0]!.written);
    assert(words.some((word) => word !== 0));
  });

  it('takes a header and a status that are split over buffers', () => {
    const whole = header(Type.out, 2);
    const { status } = ask([
      whole.subarray(0, 5),
      whole.subarray(5),
      Buffer.alloc(300, 9),
      Buffer.alloc(212, 8),
    ]);
    assert.equal(status, OK);
    assert.deepEqual(sector(2), Buffer.concat([Buffer.alloc(300, 9), Buffer.alloc(212, 8)]));
    send([header(Type.in, 0)], 512 + 1); // data and status in one buffer
    const [answer] = settle();
    assert.equal(answer!.written.length, 513);
    assert.equal(answer!.written.at(-1), OK);
  });

  it('flushes, and tells its name', () => {
    assert.equal(ask([header(Type.flush, 0)]).status, OK);
    assert.equal(io.counts.sync, 1);
    const { data, status } = ask([header(Type.getId, 0)], 20);
    assert.equal(status, OK);
    assert.equal(data.toString('latin1').replace(/\0+$/, ''), 'disk0');
  });

  it('never reports a flush as done again after one failed, because the host may have dropped the writes', () => {
    start({ onError: 'report' });
    io.fault = (name) => (name === 'sync' ? EIO : 0);
    assert.equal(ask([header(Type.flush, 0)]).status, IO_ERROR);
    // The host reports such a failure once, and drops what it could not write.
    io.fault = () => 0;
    assert.equal(ask([header(Type.flush, 0)]).status, IO_ERROR);
    assert.equal(ask([header(Type.in, 0)], 512).status, OK);
  });

  it('discards and zeroes ranges', () => {
    assert.equal(ask([header(Type.discard, 0), segment(8, 8), segment(20, 1)]).status, OK);
    assert(
      file()
        .subarray(8 * 512, 16 * 512)
        .every((byte) => byte === 0),
    );
    assert(sector(20).every((byte) => byte === 0));
    assert.equal(ask([header(Type.writeZeroes, 0), segment(30, 2)]).status, OK);
    assert.equal(ask([header(Type.writeZeroes, 0), segment(40, 8, 1)]).status, OK);
    for (const n of [30, 31, 40, 47]) assert(sector(n).every((byte) => byte === 0));
    for (const n of [7, 16, 19, 21, 29, 32, 39, 48]) assert(sector(n).every((byte) => byte === n + 1));
  });

  for (const [what, readable, data, status] of [
    ['reads beyond the end', [header(Type.in, SECTORS - 1)], [1024], IO_ERROR],
    ['reads at an absurd sector', [header(Type.in, 2n ** 64n - 1n)], [512], IO_ERROR],
    ['reads a part of a sector', [header(Type.in, 0)], [100], IO_ERROR],
    ['reads nothing', [header(Type.in, 0)], [], IO_ERROR],
    ['writes beyond the end', [header(Type.out, SECTORS), Buffer.alloc(512)], [], IO_ERROR],
    ['writes a part of a sector', [header(Type.out, 0), Buffer.alloc(511)], [], IO_ERROR],
    ['discards beyond the end', [header(Type.discard, 0), segment(60, 5)], [], IO_ERROR],
    ['discards with a huge count', [header(Type.discard, 0), segment(0, 0xffffffff)], [], IO_ERROR],
    ['discards with a flag', [header(Type.discard, 0), segment(0, 8, 1)], [], UNSUPPORTED],
    ['zeroes with an unknown flag', [header(Type.writeZeroes, 0), segment(0, 8, 2)], [], UNSUPPORTED],
    ['discards no segment', [header(Type.discard, 0)], [], IO_ERROR],
    ['discards a part of a segment', [header(Type.discard, 0), Buffer.alloc(15)], [], IO_ERROR],
    ['sends an unknown type', [header(99, 0)], [], UNSUPPORTED],
  ] as const)
    it(`answers a driver that ${what} with an error, and changes nothing`, () => {
      const before = Buffer.from(file());
      assert.equal(ask(readable, ...data).status, status);
      assert.deepEqual(file(), before);
    });

  for (const [what, readable, writable] of [
    ['no room for a status', [header(Type.flush, 0)], []],
    ['no whole header', [Buffer.alloc(15)], [1]],
  ] as const)
    it(`needs a reset after a request with ${what}`, () => {
      send(readable, ...writable);
      assert.deepEqual(settle(), []);
      assert(rig.read(0x070) & 0x40, 'DEVICE_NEEDS_RESET');
      driver.start(ALL_FEATURES);
      assert.equal(ask([header(Type.in, 0)], 512).status, OK);
    });

  it('does not let a driver write to a read-only disk', () => {
    start({ readOnly: true });
    const before = Buffer.from(file());
    assert.equal(ask([header(Type.out, 0), Buffer.alloc(512, 7)]).status, IO_ERROR);
    assert.equal(ask([header(Type.writeZeroes, 0), segment(0, 8)]).status, IO_ERROR);
    assert.equal(ask([header(Type.in, 0)], 512).status, OK);
    assert.deepEqual(file(), before);
  });

  it('keeps a request that the host fails, pauses the machine, and tries again when it is resumed', () => {
    io.fault = () => EIO;
    send([header(Type.out, 1), Buffer.alloc(512, 7)], 1);
    assert.deepEqual(settle(), []);
    assert.equal(stalls.length, 1);
    assert.match(stalls[0]!, /^disk0 cannot be written at block 0/);
    io.fault = () => 0;
    rig.pause();
    rig.resume();
    assert.equal(settle().length, 1);
    assert(sector(1).every((byte) => byte === 7));
  });

  it('tries a request that waits for the host again only after a pause, and asks for that once', () => {
    io.fault = (name) => (name === 'write' ? EIO : 0);
    send([header(Type.out, 1), Buffer.alloc(512, 7)], 1);
    settle();
    for (let i = 0; i < 3; i++) assert.equal(ask([header(Type.in, 0)], 512).status, OK);
    assert.equal(io.counts.write, 1);
    assert.equal(stalls.length, 1);
    rig.pause();
    rig.resume();
    settle();
    assert.equal(io.counts.write, 2);
    assert.equal(stalls.length, 2);
  });

  it('gives the guest an error instead, with on-error=report', () => {
    start({ onError: 'report' });
    io.fault = () => EIO;
    assert.equal(ask([header(Type.in, 0)], 512).status, IO_ERROR);
    assert.deepEqual(stalls, []);
    io.fault = () => 0;
    assert.equal(ask([header(Type.in, 0)], 512).status, OK);
  });

  it('has unfinished requests in its state, and a restored one does them again', () => {
    send([header(Type.out, 5), Buffer.alloc(512, 0xaa)], 1);
    send([header(Type.in, 6)], 512, 1);
    rig.pause();
    const saved = rig.save();
    const old = rig;
    // In the snapshot the disk is as it was.
    fd = io.addFile(Buffer.from(file()));
    rig = VirtioRig.restore(saved, makeDescriptor());
    driver.moveTo(rig);
    saved.ram.close();
    rig.resume();
    const answers = settle();
    assert.equal(answers.length, 2);
    assert(sector(5).every((byte) => byte === 0xaa));
    old.close();
  });

  it('resets only when the disk uses no guest memory any more', () => {
    send([header(Type.in, 0)], 512, 1);
    let isDone = false;
    device.reset(() => {
      isDone = true;
    });
    assert.equal(isDone, false);
    io.settle();
    assert.equal(isDone, true);
    assert.deepEqual(driver.collect(), []);
  });

  it('begins no further request while much is worked on, and does all of them in the end', () => {
    const sizeBytes = 2 ** 33;
    start({ sizeBytes, onError: 'report', written: SharedBits.allocate(blocksOf(sizeBytes)) });
    let punches = 0;
    const { punch } = FakeIo.prototype;
    io.punch = (...operation) => {
      punches++;
      punch.apply(io, operation);
    };
    io.fault = () => EIO; // nothing of this size is done
    const sectors = 1 << 17;
    const segments = [0, 1, 2, 3].map((i) => segment(i * sectors, sectors));
    for (let i = 0; i < 8; i++) send([header(Type.discard, 0), ...segments], 1);
    assert.equal(punches, 4, 'one request has 256 MiB');
    const answers: Answer[] = [];
    while (!io.isIdle) answers.push(...settle());
    assert.equal(answers.length, 8);
    assert.equal(punches, 8 * 4);
  });

  it('marks a block before the driver learns that it is written', () => {
    const written = SharedBits.allocate(8);
    start({ written });
    send([header(Type.out, 8), Buffer.alloc(512, 7)], 1);
    io.settle();
    assert(new SharedBits(written).has(1), 'it is marked before the used entry is published');
    assert.deepEqual(driver.collect(), []);
    device.publish();
    assert.equal(driver.collect().length, 1);
  });
});
