/**
 * quarantine/: where repair moves what is damaged and what it does not understand, for people to look at (docs/format.md,
 * "Repair").
 *
 * Invariant: nothing in it is ever removed or overwritten; what comes back from it is a pack like any other, so its
 * number and generation are never given again.
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
 * Numbers of files up to this are believed of a name alone; no store has come so far. The index's next number comes after
 * the highest that is believed, and must leave numbers for all packs and segments to come: so up to HIGHEST_NUMBER a
 * file, or a snapshot's places, must say it.
 */
export const BELIEVED_BY_NAME = 2 ** 31 - 1;

/** Moves a file of the store to quarantine/, under a name that is free there. */
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

/** The generations of each pack that were set aside. */
export function quarantinedGenerations(dir: string): Map<number, number[]> {
  const found = new Map<number, number[]>();
  for (const name of namesIn(dir, QUARANTINE)) {
    const pack = quarantinedPack(name);
    if (!pack) continue;
    const known = found.get(pack.number);
    if (known) known.push(pack.generation);
    else found.set(pack.number, [pack.generation]);
  }
  return found;
}

/** The highest number of a pack that was set aside, and may come back. */
export function lastQuarantined(dir: string): number {
  let last = 0;
  for (const name of namesIn(dir, QUARANTINE)) {
    const pack = quarantinedPack(name);
    if (!pack || pack.number > HIGHEST_NUMBER || pack.number <= last) continue;
    if (pack.number <= BELIEVED_BY_NAME || hasPackHeader(dir, `${QUARANTINE}/${name}`, pack))
      last = pack.number;
  }
  return last;
}

/** A pack's name, with the suffix that it may have got in quarantine/. */
const quarantinedPack = (name: string): PackName | null => parsePackName(name.replace(/\.\d+$/, ''));

/** Whether a file's header is that of this pack. */
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
