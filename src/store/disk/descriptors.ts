/**
 * Limits the files that the store keeps open to shares of the process's limit, so that descriptors are left for
 * everything else, such as sockets. (Node has raised the limit to its maximum.)
 */
import { readFileSync } from 'node:fs';

/** Used where the limit cannot be read: the lowest limit of common systems. */
const LOWEST_LIMIT = 256;

function descriptorLimit(): number {
  try {
    const limit = /^Max open files +(\d+|unlimited)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1];
    return limit === 'unlimited' ? Number.POSITIVE_INFINITY : Number(limit ?? LOWEST_LIMIT);
  } catch {
    return LOWEST_LIMIT;
  }
}

const limit = descriptorLimit();

/** Packs that all saves of the process together protect from gc. */
export const MAX_HELD_PACKS = Math.max(8, Math.min(65_536, Math.floor(limit / 4)));
/**
 * Packs that one set keeps open for reading, and segments that are merged at once. A process has about four sets, and the
 * lists of a pack take up to 160 KiB.
 */
export const MAX_OPEN_FILES = Math.max(4, Math.min(512, Math.floor(limit / 16)));

export function isOutOfDescriptors(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'EMFILE' || code === 'ENFILE';
}
