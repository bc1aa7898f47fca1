/**
 * Tags: the index says which snapshot a label names, and a file `tags/LABEL` says it again for repair.
 *
 * Invariant: files are written and removed under an exclusive lock on the directory `tags/`, and only to what the
 * index says while it is held; so whoever is last, the files end as the index is.
 */
import { lstatSync, readdirSync } from 'node:fs';
import { LivesnapError } from '../errors.js';
import type { StoreContext } from './context.js';
import { DamageError } from './disk/damage.js';
import {
  at,
  fsyncDirectory,
  isTemporary,
  LOOKS_LIKE_ID,
  removeIfThere,
  SNAPSHOT_ID,
  TAG_LABEL,
  TAGS,
  tagFile,
  writeAtomically,
} from './disk/layout.js';
import { readSmallFile } from './disk/store-file.js';
import { StoreLock } from './disk/store-lock.js';

/** Errors: USAGE. */
export function requireTagLabel(label: string): void {
  if (!TAG_LABEL.test(label))
    throw new LivesnapError('USAGE', `${JSON.stringify(label)} cannot be a tag`, {
      hint: LOOKS_LIKE_ID.test(label)
        ? 'It looks like the id of a snapshot: leave out a digit, or add one.'
        : 'Use 1 to 64 letters, digits, dots, underscores and hyphens, the first a letter or digit, and not .tmp at the end.',
    });
}

/** Brings the files of these labels in line with the index. Errors: STORE_BUSY, NO_SPACE, DAMAGED. */
export function syncTagFiles(context: StoreContext, labels: readonly string[]): void {
  if (labels.length > 0) sync(context, () => ({ labels, leftovers: [] }));
}

/** Brings all files of tags/ in line with the index, and removes what writes that were cut short left. */
export function syncAllTagFiles(context: StoreContext): void {
  sync(context, () => {
    const names = readdirSync(at(context.dir, TAGS));
    const listed = context.index.tags().map(({ label }) => label);
    return {
      labels: new Set([...names.filter((name) => TAG_LABEL.test(name)), ...listed]),
      leftovers: names.filter(isTemporary),
    };
  });
}

/** `what` is asked for under the lock. */
function sync(
  { dir, index }: StoreContext,
  what: () => { labels: Iterable<string>; leftovers: readonly string[] },
): void {
  const lock = StoreLock.acquireSync(dir, 'exclusive', TAGS);
  try {
    const { labels, leftovers } = what();
    let removed = false;
    for (const label of labels) {
      const path = at(dir, tagFile(label));
      const id = index.taggedAs(label);
      if (id === undefined) removed = removeIfThere(path) || removed;
      else if (readTagFile(dir, label) !== id && !isDirectory(path)) writeAtomically(path, `${id}\n`);
    }
    for (const name of leftovers) removed = removeIfThere(at(dir, `${TAGS}/${name}`)) || removed;
    if (removed) fsyncDirectory(at(dir, TAGS));
  } finally {
    lock.release();
  }
}

/** Nothing can take its place. check names it, and repair sets it aside. */
const isDirectory = (path: string): boolean =>
  lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

/** The id in a tag's file. Errors: DAMAGED. */
export function readTag(dir: string, label: string): string {
  const file = tagFile(label);
  const text = readSmallFile(dir, file, 64).toString('latin1');
  const id = text.slice(0, -1);
  if (!SNAPSHOT_ID.test(id) || text.at(-1) !== '\n')
    throw new DamageError(file, 0, 'this is not the id of a snapshot');
  return id;
}

/** The same; null when it cannot be read. */
function readTagFile(dir: string, label: string): string | null {
  try {
    return readTag(dir, label);
  } catch (error) {
    if (error instanceof DamageError) return null;
    throw error;
  }
}
