/**
 * Compares two snapshots of a store, or two regions, by their manifests: which pages of which regions differ.
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
import { findRegion } from './snapshot/description.js';
import { ManifestBlock, readBlock, readPages } from './snapshot/manifest.js';
import { readNamed, type SnapshotFile } from './snapshot/snapshot-file.js';
import type { RegionDifference } from './types.js';

/** Never written to. */
const ALL_ZERO = new ManifestBlock();

/** One region of a snapshot; `region` is -1 if the snapshot does not have it. */
interface Side {
  readonly file: SnapshotFile;
  readonly name: string;
  readonly region: number;
  readonly sizeBytes: number | null;
}

/** A snapshot by its ID, and one of its regions; null: all of them, or the one that suits the other side. */
export interface DiffOperand {
  readonly id: string;
  readonly region: string | null;
}

/**
 * The caller holds the store's lock. Compares the regions with the same name: first those of `a`, then those that only
 * `b` has. If a region is named, compares only that one: with the region named for the other side, or else with the
 * only region of a file, or the region of the same name. Errors: DAMAGED, NO_SUCH_REGION.
 */
export function diffSnapshots(context: StoreContext, a: DiffOperand, b: DiffOperand): RegionDifference[] {
  const [left, right] = [readNamed(context.dir, a.id), readNamed(context.dir, b.id)];
  if (a.region !== null || b.region !== null)
    return [diffRegion(context, namedSide(left, a.region, b.region), namedSide(right, b.region, a.region))];
  const names = new Set(
    [left, right].flatMap(({ description }) => description.regions.map(({ name }) => name)),
  );
  return [...names].map((name) => diffRegion(context, sideOf(left, name), sideOf(right, name)));
}

/** `other`: the region that is named for the other side. Errors: NO_SUCH_REGION. */
function namedSide(file: SnapshotFile, wanted: string | null, other: string | null): Side {
  const { kind, regions } = file.description;
  const only = kind === 'file' && regions.length === 1 ? regions[0]!.name : null;
  const name = wanted ?? only ?? other!;
  findRegion(file.description, name);
  return sideOf(file, name);
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
  return before.region < 0 ? null : diffRegion(context, before, sideOf(file, name)).pages;
}

function sideOf(file: SnapshotFile, name: string): Side {
  const { regions } = file.description;
  const region = regions.findIndex((each) => each.name === name);
  return { file, name, region, sizeBytes: regions[region]?.sizeBytes ?? null };
}

function diffRegion(context: StoreContext, a: Side, b: Side): RegionDifference {
  const packs = context.packSet();
  const endBytes = Math.max(a.sizeBytes ?? 0, b.sizeBytes ?? 0);
  const ranges: { fromBytes: number; toBytes: number }[] = [];
  let pages = 0;
  const add = (page: number): void => {
    const fromBytes = page * PAGE_BYTES;
    const toBytes = Math.min(endBytes, fromBytes + PAGE_BYTES);
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
  const sizeBytes = [a.sizeBytes, b.sizeBytes] as const;
  return { region: a.name, otherRegion: b.name, sizeBytes, pages, bytes, ranges };
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
