/** A disk against a plain buffer: whatever requests, saves, failures and restores come together, no byte is lost or stale. */
import { constants } from 'node:os';
import fc from 'fast-check';
import { random as seededRandom } from '../seeded-random.js';
import { type Backend, DiskRig, type GuestOperation, type Save } from './disk-rig.js';
import { FakeIo } from './fake-io.js';

const { EBADMSG, EIO, ENOSPC } = constants.errno;

/** 11 blocks and 3 sectors. */
const SECTORS = 11 * 8 + 3;

/** Requests that do not overlap, in any order. Several may lie within one block. */
const requests: fc.Arbitrary<readonly GuestOperation[]> = fc
  .array(
    fc.record({
      kind: fc.constantFrom('read', 'write', 'write', 'write', 'discard', 'zero', 'flush'),
      gap: fc.integer({ min: 0, max: 12 }),
      sectors: fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 40 })),
      value: fc.integer({ min: 1, max: 255 }),
    }),
    { maxLength: 8 },
  )
  .map((parts) => {
    const operations: GuestOperation[] = [];
    let at = 0;
    for (const { kind, gap, sectors, value } of parts) {
      const sector = at + gap;
      if (sector >= SECTORS) break;
      const count = Math.min(sectors, SECTORS - sector);
      operations.push({ kind: kind as GuestOperation['kind'], sector, sectors: count, value });
      at = sector + count;
    }
    return operations;
  });

type Command =
  | { readonly name: 'run'; readonly operations: readonly GuestOperation[] }
  | { readonly name: 'save'; readonly save: Save }
  | { readonly name: 'restore' };

const commands: fc.Arbitrary<readonly Command[]> = fc.array(
  fc.oneof(
    fc.record({ name: fc.constant('run' as const), operations: requests }),
    fc.record({
      name: fc.constant('save' as const),
      save: fc.record({
        before: requests,
        after: requests,
        stepsBefore: fc.integer({ min: 0, max: 30 }),
        fails: fc.boolean(),
        full: fc.boolean(),
      }),
    }),
    fc.record({ name: fc.constant('restore' as const) }),
  ),
  { maxLength: 8 },
);

function perform(rig: DiskRig, list: readonly Command[]): void {
  try {
    for (const command of list) {
      if (command.name === 'run') rig.run(command.operations);
      else if (command.name === 'save') rig.save(command.save);
      else rig.restore();
    }
    rig.check();
  } finally {
    rig.close();
  }
}

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
        fc.property(commands, fc.nat(), fc.boolean(), (list, seed, canPunch) => {
          const draw = seededRandom(seed);
          const random = () => draw(1);
          const io = new FakeIo();
          io.canPunch = canPunch;
          perform(new DiskRig(fakeBackend(io), SECTORS * 512, kind, random), list);
        }),
        { numRuns: 300 },
      );
    });

  for (const kind of ['raw', 'cow', 'store'] as const)
    it(`survives failures of every operation (${kind})`, () => {
      fc.assert(
        fc.property(commands, fc.nat(), (list, seed) => {
          const draw = seededRandom(seed);
          const random = () => draw(1);
          const io = new FakeIo();
          io.fault = (name) => {
            if (random() > 0.15) return 0;
            if (name === 'readStore' || name === 'copyFromStore') return EBADMSG;
            return name === 'allocate' ? ENOSPC : EIO;
          };
          const rig = new DiskRig(fakeBackend(io), SECTORS * 512, kind, random);
          rig.openScratch = () => {
            if (random() < 0.3) throw new Error('no file can be made');
            return io.addFile(Buffer.alloc(0));
          };
          perform(rig, list);
        }),
        { numRuns: 300 },
      );
    });
});
