/**
 * Compares two snapshots of a store by their manifests: which pages of which regions differ.
 *
 * Invariants:
 * - Pages with the same place are equal. So blocks that both snapshots have are not read.
 * - Pages with different fingerprints differ. Where only the places differ, the bytes decide.
 * - A region ends with zeros: a page that only one of two regions has differs if it is not zero.
 */
import { PAGE_BYTES } from '../page-stream.js';
import type { StoreContext } from './context.js';
import type { PackSet } from './pack/pack-set.js';
import { BLOCK_PAGES, type BlockEntry } from './snapshot/block-list.js';
import { ManifestBlock, readBlock, readPages } from './snapshot/manifest.js';
import { readNamed, type SnapshotFile } from './snapshot/snapshot-file.js';
import type { RegionDifference } from './types.js';

/** Never written to. */
const ALL_ZERO = new ManifestBlock();

/** One region of a snapshot; `region` is -1 if the snapshot does not have it. */
interface Side {
  readonly file: SnapshotFile;
  readonly region: number;
  readonly sizeBytes: number | null;
}

/** The caller holds the store's lock. The regions of `a` come first, then those that only `b` has. Errors: DAMAGED. */
export function diffSnapshots(context: StoreContext, a: string, b: string): RegionDifference[] {
  const [left, right] = [readNamed(context.dir, a), readNamed(context.dir, b)];
  const names = new Set(
    [left, right].flatMap(({ description }) => description.regions.map(({ name }) => name)),
  );
  return [...names].map((name) => diffRegion(context, sideOf(left, name), sideOf(right, name), name));
}

/**
 * How many pages of a region differ from the region with the same name of another snapshot; null: that has none. Errors:
 * DAMAGED.
 */
export function changedPages(
  context: StoreContext,
  file: SnapshotFile,
  parent: SnapshotFile,
  name: string,
): number | null {
  const before = sideOf(parent, name);
  return before.region < 0 ? null : diffRegion(context, before, sideOf(file, name), name).pages;
}

function sideOf(file: SnapshotFile, name: string): Side {
  const { regions } = file.description;
  const region = regions.findIndex((each) => each.name === name);
  return { file, region, sizeBytes: regions[region]?.sizeBytes ?? null };
}

function diffRegion(context: StoreContext, a: Side, b: Side, region: string): RegionDifference {
  const packs = context.packSet();
  const sizeBytes = Math.max(a.sizeBytes ?? 0, b.sizeBytes ?? 0);
  const ranges: { fromBytes: number; toBytes: number }[] = [];
  let pages = 0;
  const add = (page: number): void => {
    const fromBytes = page * PAGE_BYTES;
    const toBytes = Math.min(sizeBytes, fromBytes + PAGE_BYTES);
    const last = ranges.at(-1);
    if (last?.toBytes === fromBytes) last.toBytes = toBytes;
    else ranges.push({ fromBytes, toBytes });
    pages++;
  };
  try {
    for (const [left, right] of blockPairs(a, b)) {
      if (left && right && isSameBlock(left, right)) continue;
      const [before, after] = [load(context, packs, a, left), load(context, packs, b, right)];
      const first = (left ?? right)!.block * BLOCK_PAGES;
      for (let page = 0; page < BLOCK_PAGES; page++)
        if (!isSamePage(context, packs, before, after, page)) add(first + page);
    }
  } finally {
    packs.close();
  }
  const bytes = ranges.reduce((total, { fromBytes, toBytes }) => total + toBytes - fromBytes, 0);
  return { region, sizeBytes: [a.sizeBytes, b.sizeBytes], pages, bytes, ranges };
}

/** The blocks of both regions, by number. */
function* blockPairs(a: Side, b: Side): Generator<[BlockEntry | null, BlockEntry | null]> {
  const left = a.file.blocks.entriesOf(a.region);
  const right = b.file.blocks.entriesOf(b.region);
  let [l, r] = [left.next(), right.next()];
  while (!l.done || !r.done) {
    const [leftBlock, rightBlock] = [
      l.done ? Number.POSITIVE_INFINITY : l.value.block,
      r.done ? Number.POSITIVE_INFINITY : r.value.block,
    ];
    const [hasLeft, hasRight] = [leftBlock <= rightBlock, rightBlock <= leftBlock];
    yield [hasLeft ? l.value! : null, hasRight ? r.value! : null];
    if (hasLeft) l = left.next();
    if (hasRight) r = right.next();
  }
}

/** The places of a block name its pages exactly. */
const isSameBlock = (a: BlockEntry, b: BlockEntry): boolean =>
  a.places.pack === b.places.pack && a.places.chunk === b.places.chunk;

/** The entry is null where the side has no such block; then no page is there. */
interface LoadedBlock {
  readonly side: Side;
  readonly entry: BlockEntry | null;
  readonly block: ManifestBlock;
}

function load({ ops }: StoreContext, packs: PackSet, side: Side, entry: BlockEntry | null): LoadedBlock {
  return { side, entry, block: entry ? readBlock(ops, packs, side.file.description, entry) : ALL_ZERO };
}

function isSamePage(
  context: StoreContext,
  packs: PackSet,
  a: LoadedBlock,
  b: LoadedBlock,
  page: number,
): boolean {
  if (a.block.hasPlace(page, b.block.places)) return true;
  const [before, after] = [a.block.fingerprints, b.block.fingerprints];
  if (before[2 * page] !== after[2 * page] || before[2 * page + 1] !== after[2 * page + 1]) return false;
  return bytesOf(context, packs, a, page).equals(bytesOf(context, packs, b, page));
}

function bytesOf(
  { ops }: StoreContext,
  packs: PackSet,
  { side, entry, block }: LoadedBlock,
  page: number,
): Buffer {
  const bytes = Buffer.alloc(PAGE_BYTES);
  readPages(ops, packs, side.file.description, entry!, block, page, bytes);
  return bytes;
}
