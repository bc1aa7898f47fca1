/** A disk against a plain buffer: whatever requests, saves, failures and restores come together, no byte is lost or stale. */
import assert from 'node:assert/strict';
import { constants } from 'node:os';
import fc from 'fast-check';
import { BitSet } from '../../../../src/bit-set.js';
import { closeMemory, createMemory, readMemory } from '../../../../src/native/memory.js';
import { random as seededRandom } from '../seeded-random.js';
import { diskCommands, MODEL_SECTORS, performCommands } from './disk-commands.js';
import { type Backend, DiskRig } from './disk-rig.js';
import { FakeIo } from './fake-io.js';

const { EBADMSG, EIO, ENOSPC } = constants.errno;

const fakeBackend = (io: FakeIo): Backend => ({
  io,
  addFile: (bytes) => io.addFile(bytes),
  addStore: (bytes) => io.addStore(bytes),
  closeFile: (fd) => io.files.delete(fd),
  step: (random) => io.step(random),
  close: () => io.settle(),
});

describe('a disk compared with a model', () => {
  for (const kind of ['raw', 'cow', 'store', 'zeros'] as const)
    it(`loses nothing and shows nothing stale (${kind})`, () => {
      fc.assert(
        fc.property(diskCommands, fc.nat(), fc.boolean(), (list, seed, canPunch) => {
          const draw = seededRandom(seed);
          const random = () => draw(1);
          const io = new FakeIo();
          io.canPunch = canPunch;
          performCommands(new DiskRig(fakeBackend(io), MODEL_SECTORS * 512, kind, random), list);
        }),
        { numRuns: 300 },
      );
    });

  for (const kind of ['raw', 'cow', 'store'] as const)
    it(`survives failures of every operation (${kind})`, () => {
      fc.assert(
        fc.property(diskCommands, fc.nat(), (list, seed) => {
          const draw = seededRandom(seed);
          const random = () => draw(1);
          const io = new FakeIo();
          io.fault = (name) => {
            if (random() > 0.15) return 0;
            if (name === 'readStore' || name === 'copyFromStore') return EBADMSG;
            return name === 'allocate' ? ENOSPC : EIO;
          };
          const rig = new DiskRig(fakeBackend(io), MODEL_SECTORS * 512, kind, random);
          rig.openScratch = () => {
            if (random() < 0.3) throw new Error('no file can be made');
            return io.addFile(Buffer.alloc(0));
          };
          performCommands(rig, list);
        }),
        { numRuns: 300 },
      );
    });
});

describe('Disk', () => {
  const draw = seededRandom(1);
  let io: FakeIo;
  let rig: DiskRig;
  beforeEach(() => {
    io = new FakeIo();
    rig = new DiskRig(fakeBackend(io), MODEL_SECTORS * 512, 'store', () => draw(1));
  });
  afterEach(() => rig.close());

  it('keeps the bytes of a write that covers a block when another one comes within it', () => {
    for (let round = 0; round < 50; round++) {
      // The space is allocated, so the first of the two begins at once.
      rig.run([{ kind: 'write', sector: 0, sectors: 8, value: 3 }]);
      const whole = rig.start({ kind: 'write', sector: 8, sectors: 8, value: 1 });
      const part = rig.start({ kind: 'write', sector: 10, sectors: 1, value: 2 });
      rig.finish([whole, part]);
      rig.model.fill(1, 8 * 512, 16 * 512);
      rig.model.fill(2, 10 * 512, 11 * 512);
      rig.check();
      rig.detach();
    }
  });

  it('tries a damaged block of the store again before it gives up', () => {
    const memory = createMemory(4096);
    const read = (failures: number): string | null | undefined => {
      let left = failures;
      io.fault = () => (left-- > 0 ? EBADMSG : 0);
      let problem: string | null | undefined;
      rig.disk.read(8 * 4096, [{ memory, offset: 0, length: 512 }], (failure) => {
        problem = failure?.what ?? null;
      });
      io.settle();
      return problem;
    };
    assert.equal(read(2), null);
    assert.equal(read(3), 'cannot read snapshot test:disk0 at block 8');
    closeMemory(memory);
  });

  it('tries a damaged block again too when a save needs it, wherever its bytes are kept', () => {
    const frozen = new BitSet(12);
    frozen.addRange(0, 5); // more than fit into the memory of the rig
    rig.disk.freeze(frozen);
    let left = 1;
    io.fault = (name) => (name === 'copyFromStore' && left-- > 0 ? EBADMSG : 0);
    rig.run([{ kind: 'write', sector: 0, sectors: 40, value: 9 }]);
    const staging = createMemory(5 * 4096);
    let problem: string | null | undefined;
    rig.disk.readBlocks(Uint32Array.of(0, 1, 2, 3, 4), staging, (failure) => {
      problem = failure?.what ?? null;
    });
    while (problem === undefined) rig.step();
    assert.equal(problem, null);
    closeMemory(staging);
    rig.disk.thaw();
  });

  it('does not take old bytes of one save for those of the next', () => {
    const content = (value: number): void => rig.run([{ kind: 'write', sector: 0, sectors: 8, value }]);
    const frozen = new BitSet(12);
    frozen.add(0);
    content(1);
    rig.disk.freeze(BitSet.from(frozen.bytes));
    const write = rig.start({ kind: 'write', sector: 0, sectors: 8, value: 2 });
    // The first save fails while its bytes are being set aside, and another one has its moment.
    rig.disk.thaw();
    rig.finish([write]);
    const staging = createMemory(4096);
    rig.disk.freeze(BitSet.from(frozen.bytes));
    const later = rig.start({ kind: 'write', sector: 0, sectors: 8, value: 3 });
    io.step(() => 0);
    rig.disk.thaw();
    rig.disk.freeze(BitSet.from(frozen.bytes));
    rig.finish([later]);
    let isDone = false;
    rig.disk.readBlocks(Uint32Array.of(0), staging, () => {
      isDone = true;
    });
    while (!isDone) rig.step();
    const bytes = Buffer.alloc(4096);
    readMemory(staging, 0, bytes);
    closeMemory(staging);
    assert(
      bytes.every((byte) => byte === 2),
      `the block has ${bytes[0]}`,
    );
    rig.disk.thaw();
  });

  it('fails the save, not the write, when old bytes cannot be kept', () => {
    rig.run([{ kind: 'write', sector: 0, sectors: 88, value: 5 }]);
    rig.openScratch = () => {
      throw new Error('no space');
    };
    const save = { before: [], stepsBefore: 0, fails: false, full: true };
    // More blocks than fit into the memory of the rig.
    const after = [{ kind: 'write', sector: 0, sectors: 88, value: 6 }] as const;
    assert.equal(
      rig.save({
        ...save,
        before: [{ kind: 'write', sector: 0, sectors: 88, value: 4 }],
        stepsBefore: 1000,
        after,
      }),
      false,
    );
    rig.check();
    assert.equal(rig.save({ ...save, after: [] }), true);
  });
});
