/**
 * Manifests: which chunk holds each page of a region, in blocks of 512 pages (docs/format.md, "Manifests").
 *
 * A block is two chunks, stored in packs like pages: one has the places (pack and chunk number, 8 bytes per page), one
 * the fingerprints (8 bytes per page). A zero page has place 0, 0 and fingerprint 0. Snapshots share equal blocks.
 */
import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError, rangeOf } from '../disk/damage.js';
import { packFile } from '../disk/layout.js';
import { PACK_CHUNKS } from '../pack/pack-format.js';
import type { PackSet } from '../pack/pack-set.js';
import { BLOCK_PAGES, type BlockEntry, type Place, pagesOfBlock } from './block-list.js';
import type { SnapshotDescription } from './description.js';

/** A decoded block. Each page has two words in each array: pack and chunk, fingerprint low and high. */
export class ManifestBlock {
  readonly places = new Uint32Array(BLOCK_PAGES * 2);
  readonly fingerprints = new Uint32Array(BLOCK_PAGES * 2);

  /** Copies page `from` of another block or batch to page `to`. */
  take(to: number, places: Uint32Array, fingerprints: Uint32Array, from: number): void {
    this.places[2 * to] = places[2 * from]!;
    this.places[2 * to + 1] = places[2 * from + 1]!;
    this.fingerprints[2 * to] = fingerprints[2 * from]!;
    this.fingerprints[2 * to + 1] = fingerprints[2 * from + 1]!;
  }

  /** Sets the pages from `page` on to zero. */
  cut(page: number): void {
    this.places.fill(0, 2 * page);
    this.fingerprints.fill(0, 2 * page);
  }

  isZero(page: number): boolean {
    return this.places[2 * page] === 0;
  }

  copy({ places, fingerprints }: ManifestBlock): void {
    this.places.set(places);
    this.fingerprints.set(fingerprints);
  }

  /** Whether the page has the place that these places have for it. */
  hasPlace(page: number, places: Uint32Array): boolean {
    return this.places[2 * page] === places[2 * page] && this.places[2 * page + 1] === places[2 * page + 1];
  }

  /** The last non-zero page; -1 if all are zero. */
  get lastPage(): number {
    let page = BLOCK_PAGES - 1;
    while (page >= 0 && this.isZero(page)) page--;
    return page;
  }

  get nonZeroPages(): number {
    let count = 0;
    for (let page = 0; page < BLOCK_PAGES; page++) if (!this.isZero(page)) count++;
    return count;
  }
}

const hashScratch = new Uint8Array(8);
const hashView = new DataView(hashScratch.buffer);

/** The snapshot that is read: damage names its ID and the region. */
type Described = Pick<SnapshotDescription, 'id' | 'regions'>;

/** `error`, which reading a block threw. Damage names the snapshot, the region and the pages. */
export const errorOfBlock = (error: unknown, snapshot: Described, entry: BlockEntry): unknown =>
  errorOfPages(error, snapshot, entry, 0, BLOCK_PAGES);

/** As {@link errorOfBlock}, for page `page` of a block. */
export const errorOfPage = (error: unknown, snapshot: Described, entry: BlockEntry, page: number): unknown =>
  errorOfPages(error, snapshot, entry, page, 1);

function errorOfPages(
  error: unknown,
  { id, regions }: Described,
  { region, block }: BlockEntry,
  first: number,
  count: number,
): unknown {
  if (!(error instanceof DamageError)) return error;
  const fromBytes = (block * BLOCK_PAGES + first) * PAGE_BYTES;
  return error.in(id, rangeOf(regions[region]!, fromBytes, count * PAGE_BYTES));
}

/**
 * Reads a block and verifies it: the fingerprints by their digest, the places by which pages they have. `block`: is
 * overwritten and returned. Errors: DAMAGED.
 */
export function readBlock(
  ops: PageOps,
  packs: PackSet,
  snapshot: Described,
  entry: BlockEntry,
  block = new ManifestBlock(),
): ManifestBlock {
  try {
    return verifiedBlock(ops, packs, entry, pagesOfBlock(snapshot.regions, entry), block);
  } catch (error) {
    throw errorOfBlock(error, snapshot, entry);
  }
}

/** `pages`: the number of its pages that are within the region. */
function verifiedBlock(
  ops: PageOps,
  packs: PackSet,
  entry: BlockEntry,
  pages: number,
  block: ManifestBlock,
): ManifestBlock {
  copyChunk(packs, entry.fingerprints, block.fingerprints);
  ops.hashPages(new Uint8Array(block.fingerprints.buffer), 1, hashScratch);
  if (hashView.getBigUint64(0, true) !== entry.digest)
    throw damagedBlock(packs, entry.fingerprints, 'a manifest block does not match its digest');
  copyChunk(packs, entry.places, block.places);
  const { places, fingerprints } = block;
  let nonZeroPages = 0;
  for (let i = 0; i < BLOCK_PAGES * 2; i += 2) {
    const isZero = fingerprints[i] === 0 && fingerprints[i + 1] === 0;
    if (isZero !== (places[i] === 0) || (isZero && places[i + 1] !== 0))
      throw damagedBlock(packs, entry.places, 'the places of a manifest block do not match its fingerprints');
    if (!isZero) nonZeroPages++;
  }
  if (nonZeroPages !== entry.nonZeroPages)
    throw damagedBlock(
      packs,
      entry.places,
      'a manifest block does not have the number of pages that its snapshot lists',
    );
  if (block.lastPage >= pages)
    throw damagedBlock(packs, entry.places, 'a manifest block has pages beyond the end of its region');
  return block;
}

/** The block of two chunks that this process has just stored. Null: they do not match their entry. */
export function blockOf(
  ops: PageOps,
  fingerprints: Uint8Array,
  places: Uint8Array,
  entry: BlockEntry,
): ManifestBlock | null {
  const block = new ManifestBlock();
  new Uint8Array(block.fingerprints.buffer).set(fingerprints);
  new Uint8Array(block.places.buffer).set(places);
  ops.hashPages(fingerprints, 1, hashScratch);
  const isSame = hashView.getBigUint64(0, true) === entry.digest && block.nonZeroPages === entry.nonZeroPages;
  return isSame ? block : null;
}

/** Reads only the places of a block, without verifying them. */
export function readPlaces(packs: PackSet, entry: BlockEntry, into: Uint32Array): void {
  copyChunk(packs, entry.places, into);
}

/**
 * Reads only the places, where the chunk may be another one because packs of different stores were mixed. Verifies them
 * by the fingerprints, or by their form if the fingerprints cannot be read. Errors: DAMAGED.
 */
export function readProvenPlaces(
  packs: PackSet,
  snapshot: Described,
  entry: BlockEntry,
  into: Uint32Array,
): void {
  try {
    into.set(readBlock(packs.ops, packs, snapshot, entry).places);
    return;
  } catch (error) {
    if (!(error instanceof DamageError) || isReadable(packs, entry.fingerprints)) throw error;
  }
  readPlaces(packs, entry, into);
  let nonZeroPages = 0;
  let hasForm = true;
  for (let i = 0; i < BLOCK_PAGES * 2; i += 2) {
    if (into[i] !== 0) nonZeroPages++;
    hasForm &&= into[i + 1]! < PACK_CHUNKS && (into[i] !== 0 || into[i + 1] === 0);
  }
  if (!hasForm || nonZeroPages !== entry.nonZeroPages)
    throw damagedBlock(packs, entry.places, 'the chunk is not a manifest block of the snapshot');
}

/**
 * Fills `into`, which is zero and as long as some pages, from page `first` of a block on. Verifies the pages by their
 * fingerprints. Errors: DAMAGED.
 */
export function readPages(
  ops: PageOps,
  packs: PackSet,
  snapshot: Described,
  entry: BlockEntry,
  { places, fingerprints }: ManifestBlock,
  first: number,
  into: Uint8Array,
): void {
  const count = into.length / PAGE_BYTES;
  let page = first;
  try {
    for (; page < first + count; page++) {
      if (places[2 * page] === 0) continue;
      const { bytes, offset } = packs.chunk(places[2 * page]!, places[2 * page + 1]!);
      into.set(bytes.subarray(offset, offset + PAGE_BYTES), (page - first) * PAGE_BYTES);
    }
    const hashes = new Uint32Array(count * 2);
    ops.hashPages(into, count, new Uint8Array(hashes.buffer));
    const wrong = hashes.findIndex((word, i) => word !== fingerprints[2 * first + i]);
    if (wrong < 0) return;
    page = first + (wrong >>> 1);
    const place = { pack: places[2 * page]!, chunk: places[2 * page + 1]! };
    throw damagedBlock(packs, place, 'a chunk is not the page that was saved');
  } catch (error) {
    throw errorOfPage(error, snapshot, entry, page);
  }
}

function isReadable(packs: PackSet, { pack, chunk }: Place): boolean {
  try {
    packs.chunk(pack, chunk);
    return true;
  } catch (error) {
    if (error instanceof DamageError) return false;
    throw error;
  }
}

function copyChunk(packs: PackSet, place: Place, into: Uint32Array): void {
  const { bytes, offset } = packs.chunk(place.pack, place.chunk);
  new Uint8Array(into.buffer, into.byteOffset).set(bytes.subarray(offset, offset + PAGE_BYTES));
}

function damagedBlock(packs: PackSet, place: Place, why: string): DamageError {
  try {
    return new DamageError(packs.pack(place.pack).file, packs.offsetOf(place.pack, place.chunk), why);
  } catch {
    return new DamageError(packFile(place.pack, 0), null, why);
  }
}
