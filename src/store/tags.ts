/**
 * Tags: the index maps a label to a snapshot, and the file `tags/LABEL` repeats it for repair.
 *
 * Invariant: files are written and deleted under an exclusive lock on the directory `tags/`, to match the index as it
 * is then. So after concurrent changes the files match the index.
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

/**
 * How many tags may be set on a snapshot, because a copy sends them all in one message. A repair lists more than that
 * where there are more files.
 */
export const MAX_TAGS = 1024;

/** The labels sorted, each once. Errors: USAGE (an invalid one; too many for a snapshot). */
export function requireTagLabels(labels: readonly string[]): string[] {
  // A program in JavaScript may give a text, which would be a list of its letters.
  if (!Array.isArray(labels))
    throw new LivesnapError('USAGE', 'tags is not a list', { hint: "Example: ['first']." });
  for (const label of labels) requireTagLabel(label);
  const distinct = [...new Set(labels)].sort();
  if (distinct.length > MAX_TAGS)
    throw new LivesnapError('USAGE', `a snapshot cannot have ${distinct.length} tags`, {
      hint: `The limit is ${MAX_TAGS}. livesnap untag removes tags.`,
    });
  return distinct;
}

/** Errors: USAGE. */
export function requireTagLabel(label: string): void {
  if (!TAG_LABEL.test(label))
    throw new LivesnapError('USAGE', `${JSON.stringify(label)} is not a valid tag`, {
      hint: LOOKS_LIKE_ID.test(label)
        ? 'It looks like a snapshot ID: leave out a digit, or add one.'
        : 'Use 1 to 64 letters, digits, dots, underscores and hyphens. Begin with a letter or digit, and do not end with .tmp.',
    });
}

/** Makes the files of these tags match the index. Errors: STORE_BUSY, NO_SPACE, DAMAGED. */
export function syncTagFiles(context: StoreContext, labels: readonly string[]): void {
  if (labels.length > 0) sync(context, () => ({ labels, leftovers: [] }));
}

/** Makes all files of tags/ match the index, and deletes the temporary files of interrupted writes. */
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

/** `choose` is called with the lock held. */
function sync(
  { dir, index }: StoreContext,
  choose: () => { labels: Iterable<string>; leftovers: readonly string[] },
): void {
  const lock = StoreLock.acquireSync(dir, 'exclusive', TAGS);
  try {
    const { labels, leftovers } = choose();
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

/** A directory cannot be replaced by a file. check reports it, and repair moves it to the quarantine. */
const isDirectory = (path: string): boolean =>
  lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

/** The snapshot ID in a tag's file. Errors: DAMAGED. */
export function readTag(dir: string, label: string): string {
  const file = tagFile(label);
  const text = readSmallFile(dir, file, 64).toString('latin1');
  const id = text.slice(0, -1);
  if (!SNAPSHOT_ID.test(id) || text.at(-1) !== '\n')
    throw new DamageError(file, 0, 'the file does not hold a snapshot ID');
  return id;
}

/** The same; null if the file cannot be read. */
function readTagFile(dir: string, label: string): string | null {
  try {
    return readTag(dir, label);
  } catch (error) {
    if (error instanceof DamageError) return null;
    throw error;
  }
}
