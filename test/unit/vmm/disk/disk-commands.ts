/** Random commands for a {@link DiskRig}: requests, saves and restores. */
import fc from 'fast-check';
import type { DiskRig, GuestOperation, Save } from './disk-rig.js';

/** 11 blocks and 3 sectors. */
export const MODEL_SECTORS = 11 * 8 + 3;

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
      if (sector >= MODEL_SECTORS) break;
      const count = Math.min(sectors, MODEL_SECTORS - sector);
      operations.push({ kind: kind as GuestOperation['kind'], sector, sectors: count, value });
      at = sector + count;
    }
    return operations;
  });

export type Command =
  | { readonly name: 'run'; readonly operations: readonly GuestOperation[] }
  | { readonly name: 'save'; readonly save: Save }
  | { readonly name: 'restore' };

export const diskCommands: fc.Arbitrary<readonly Command[]> = fc.array(
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

/** Performs commands, then compares the whole disk, and closes the rig. */
export function performCommands(rig: DiskRig, list: readonly Command[]): void {
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
