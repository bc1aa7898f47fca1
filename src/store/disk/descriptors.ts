/**
 * How many files the store may keep open: shares of what the process may have at all, so that descriptors are left for
 * whatever else it does, such as sockets. (Node has raised the limit as far as it goes.)
 */
import { readFileSync } from 'node:fs';

/** Where the limit cannot be read: what systems give at least. */
const FEWEST = 256;

function descriptorLimit(): number {
  try {
    const limit = /^Max open files +(\d+|unlimited)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1];
    return limit === 'unlimited' ? Number.POSITIVE_INFINITY : Number(limit ?? FEWEST);
  } catch {
    return FEWEST;
  }
}

const limit = descriptorLimit();

/** Packs that all saves of the process hold from gc. */
export const MAX_HELD_PACKS = Math.max(8, Math.min(65_536, Math.floor(limit / 4)));
/**
 * Packs that one set keeps open to read, a process having some four sets (a pack's lists are up to 160 KiB); and
 * segments that are merged at once.
 */
export const MAX_OPEN_FILES = Math.max(4, Math.min(512, Math.floor(limit / 16)));

export function isOutOfDescriptors(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'EMFILE' || code === 'ENFILE';
}
