/**
 * Deletes files that the index does not list (docs/format.md, "Locks").
 *
 * The index may list a file later: a process that is killed between syncing a commit to SQLite's log and publishing it
 * in the WAL index leaves a commit that is invisible until the log is recovered. So a file is deleted in this order:
 *
 * 1. Lock the file exclusively. From then on no process can commit it.
 * 2. Commit a no-op, which overwrites an invisible commit in the log.
 * 3. Read the index again. Its answer is final now.
 */
import { closeSync, fstatSync, unlinkSync } from 'node:fs';
import type { StoreContext } from '../context.js';
import { openExclusive } from '../disk/file-locks.js';

/** How many files are locked and deleted together. */
export const FILES_AT_ONCE = 128;

export interface UnlistedFile {
  readonly path: string;
  /** Whether the index lists the file now. */
  isListed(): boolean;
}

/**
 * Deletes the files that no process holds and the index does not list. Returns the size of each file; null for one that
 * was kept or does not exist. Errors: NO_SPACE, when there is no space even for a small commit.
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
