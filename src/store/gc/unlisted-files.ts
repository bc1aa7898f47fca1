/**
 * Unlinking files that the index does not list (docs/format.md, "Locks").
 *
 * That the index lacks something is not the end of it. A process that is killed between syncing a commit to SQLite's
 * log and telling the others of it leaves a commit that nobody sees, until the log is next recovered: then it is there.
 * So a file goes in this order: its lock is taken alone, from when on nobody is left who could have it committed;
 * a commit of our own takes the place of whatever nobody sees in the log; and what the index says after that is final.
 */
import { closeSync, fstatSync, unlinkSync } from 'node:fs';
import type { StoreContext } from '../context.js';
import { openExclusive } from '../disk/file-locks.js';

/** So many files are locked, and go, at once. */
export const FILES_AT_ONCE = 128;

export interface UnlistedFile {
  readonly path: string;
  /** Whether the index has come to list it. */
  isListed(): boolean;
}

/**
 * Unlinks those files that nobody holds and the index does not list. Returns the bytes that they had, null for one that
 * stays or is not there. Errors: NO_SPACE, when not even a small commit finds room.
 */
export function unlinkUnlisted({ index }: StoreContext, files: readonly UnlistedFile[]): (number | null)[] {
  const sizes: (number | null)[] = [];
  for (let i = 0; i < files.length; i += FILES_AT_ONCE) {
    const held: { file: UnlistedFile; fd: number | null }[] = [];
    try {
      for (const file of files.slice(i, i + FILES_AT_ONCE)) held.push({ file, fd: openExclusive(file.path) });
      if (held.some(({ fd }) => fd !== null)) index.invalidateUnseenCommits();
      for (const { file, fd } of held) {
        if (fd === null || file.isListed()) {
          sizes.push(null);
          continue;
        }
        sizes.push(fstatSync(fd).size);
        unlinkSync(file.path);
      }
    } finally {
      for (const { fd } of held) if (fd !== null) closeSync(fd);
    }
  }
  return sizes;
}
