/** The losses of a snapshot: address ranges of its regions whose pages can no longer be read. */

import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError } from '../disk/damage.js';
import { FrameFlag } from '../pack/pack-format.js';
import type { PackSet } from '../pack/pack-set.js';
import { BLOCK_PAGES } from '../snapshot/block-list.js';
import { type ManifestBlock, readBlock } from '../snapshot/manifest.js';
import type { SnapshotFile } from '../snapshot/snapshot-file.js';
import type { LostRange } from '../types.js';

/** Goes by the marks of frames and the lists of packs; reads no page. Adjacent ranges are joined. */
export function lossesOf(
  ops: PageOps,
  packs: PackSet,
  { description, blocks }: SnapshotFile,
  tags: readonly string[],
): LostRange[] {
  const lost: { region: string; fromBytes: number; toBytes: number }[] = [];
  const add = (region: number, fromPage: number, pages: number): void => {
    const { name, sizeBytes } = description.regions[region]!;
    const fromBytes = fromPage * PAGE_BYTES;
    const toBytes = Math.min(sizeBytes, (fromPage + pages) * PAGE_BYTES);
    const last = lost.at(-1);
    if (last?.region === name && last.toBytes === fromBytes) last.toBytes = toBytes;
    else if (fromBytes < toBytes) lost.push({ region: name, fromBytes, toBytes });
  };
  for (const entry of blocks) {
    const firstPage = entry.block * BLOCK_PAGES;
    try {
      const block = readBlock(ops, packs, description, entry);
      for (let page = 0; page < BLOCK_PAGES; page++)
        if (!block.isZero(page) && isLost(packs, block, page)) add(entry.region, firstPage + page, 1);
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
      add(entry.region, firstPage, BLOCK_PAGES); // The places of all its pages are lost.
    }
  }
  return lost.map((range) => ({ snapshot: description.id, tags, ...range }));
}

/**
 * The fingerprints are compared because the pack may be of another store under the same name: intact, with chunks of
 * these numbers, but not with these pages.
 */
function isLost(packs: PackSet, { places, fingerprints }: ManifestBlock, page: number): boolean {
  try {
    const pack = packs.pack(places[2 * page]!);
    const position = pack.positionOf(places[2 * page + 1]!);
    return (
      position < 0 ||
      !pack.isListedAs(position, fingerprints[2 * page]!, fingerprints[2 * page + 1]!) ||
      (pack.frames.at(pack.frames.indexOf(position)).flags & FrameFlag.lost) !== 0
    );
  } catch (error) {
    if (error instanceof DamageError) return true;
    throw error;
  }
}
