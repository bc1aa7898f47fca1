/** The generations of a pack on disk, and which of them are needed (docs/format.md, "gc"). */
import { existsSync } from 'node:fs';
import type { StoreContext } from '../context.js';
import { DamageError } from '../disk/damage.js';
import { lockState } from '../disk/file-locks.js';
import { at, generationsOnDisk, packFile } from '../disk/layout.js';
import { FrameFlag, type PackName } from '../pack/pack-format.js';
import { PackReader } from '../pack/pack-reader.js';

export const pathOf = ({ dir }: StoreContext, { number, generation }: PackName): string =>
  at(dir, packFile(number, generation));

/**
 * Whether the index lists the pack, or the next repair may need it:
 * - any generation, if the listed one is missing: an interrupted repair may have moved that to the quarantine;
 * - an older generation, if the listed one has lost chunks: it came back from a backup.
 */
export function mayBeNeeded(context: StoreContext, { number, generation }: PackName): boolean {
  const listed = context.index.generationOf(number);
  if (listed === undefined || listed === generation) return listed === generation;
  if (!existsSync(at(context.dir, packFile(number, listed)))) return true;
  if (listed < generation) return false;
  try {
    const reader = new PackReader(context.ops, context.dir, { number, generation: listed });
    try {
      return [...reader.frames].some(({ flags }) => (flags & FrameFlag.lost) !== 0);
    } finally {
      reader.close();
    }
  } catch (error) {
    if (error instanceof DamageError) return true; // repair may need both
    throw error;
  }
}

/**
 * Whether another generation of the pack stays on disk, which a save may list later. Each generation must be a subset
 * of all earlier ones, so the listed one is rewritten only when it is the only one. `dryRun`: gc would have deleted
 * those that it can.
 */
export function hasOtherGeneration(
  context: StoreContext,
  { number, generation }: PackName,
  dryRun: boolean,
): boolean {
  return generationsOnDisk(context.dir, number).some((other) => {
    if (other === generation) return false;
    const stays = (): boolean => lockState(pathOf(context, { number, generation: other })) !== 'free';
    return !dryRun || mayBeNeeded(context, { number, generation: other }) || stays();
  });
}
