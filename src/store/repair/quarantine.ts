/**
 * quarantine/: repair moves damaged and unusable files here, for the user to inspect (docs/format.md, "Repair").
 *
 * Invariants:
 * - livesnap never removes or overwrites a file in it.
 * - The user may move a pack back to packs/. So its number and its generation are never used again.
 */
import { lstatSync, renameSync } from 'node:fs';
import { basename } from 'node:path';
import { pageOps } from '../../native/pages.js';
import { DamageError } from '../disk/damage.js';
import {
  at,
  fsyncDirectory,
  HIGHEST_NUMBER,
  makeFolder,
  namesIn,
  parsePackName,
  QUARANTINE,
} from '../disk/layout.js';
import { StoreFile } from '../disk/store-file.js';
import { decodePackHeader, FormatError, PACK_HEADER_BYTES, type PackName } from '../pack/pack-format.js';

/**
 * File numbers up to this are accepted from the name alone; no real store reaches them. The index's next number is
 * above every accepted one, and must leave numbers for all packs and segments to come. So a higher number, up to
 * HIGHEST_NUMBER, is accepted only if the contents of the file or a place in a snapshot confirm it.
 */
export const MAX_NUMBER_FROM_NAME = 2 ** 31 - 1;

/** Moves a file of the store to quarantine/. If its name is taken there, a suffix is added (`.1`, `.2`, …). */
export function quarantine(dir: string, file: string): void {
  const folder = at(dir, QUARANTINE);
  makeFolder(folder);
  const isTaken = (name: string): boolean =>
    lstatSync(at(folder, name), { throwIfNoEntry: false }) !== undefined;
  let name = basename(file);
  for (let i = 1; isTaken(name); i++) name = `${basename(file)}.${i}`;
  renameSync(at(dir, file), at(folder, name));
  fsyncDirectory(folder);
  fsyncDirectory(dir);
}

/** The generations of each pack in quarantine/, by number. */
export function quarantinedGenerations(dir: string): Map<number, number[]> {
  const found = new Map<number, number[]>();
  for (const name of namesIn(dir, QUARANTINE)) {
    const pack = packOf(name);
    if (!pack) continue;
    const known = found.get(pack.number);
    if (known) known.push(pack.generation);
    else found.set(pack.number, [pack.generation]);
  }
  return found;
}

/** The highest number of a pack in quarantine/. */
export function highestQuarantinedPack(dir: string): number {
  let highest = 0;
  for (const name of namesIn(dir, QUARANTINE)) {
    const pack = packOf(name);
    if (!pack || pack.number > HIGHEST_NUMBER || pack.number <= highest) continue;
    if (pack.number <= MAX_NUMBER_FROM_NAME || hasPackHeader(dir, `${QUARANTINE}/${name}`, pack))
      highest = pack.number;
  }
  return highest;
}

/** The pack that a name stands for, without the suffix of {@link quarantine}. */
const packOf = (name: string): PackName | null => parsePackName(name.replace(/\.\d+$/, ''));

/** Whether the header of a file is that of this pack. */
function hasPackHeader(dir: string, file: string, pack: PackName): boolean {
  try {
    const opened = new StoreFile(dir, file);
    try {
      decodePackHeader(pageOps, opened.read(0, PACK_HEADER_BYTES), pack, file);
      return true;
    } finally {
      opened.close();
    }
  } catch (error) {
    if (error instanceof DamageError || error instanceof FormatError) return false;
    throw error;
  }
}
