/**
 * The file `snapshots/ID`: what a snapshot is, in one file with a root digest (docs/format.md, "Snapshots").
 *
 * Invariants: with its packs it is enough to restore the snapshot and to list it, without the index; written once,
 * never changed; nothing in it is believed before the digest was checked and every number was found in bounds.
 */

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { closeSync, fsyncSync, writeFileSync } from 'node:fs';
import type { Region } from '../../page-stream.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError } from '../disk/damage.js';
import { createLocked } from '../disk/file-locks.js';
import { FORMAT_VERSION, refuseNewer } from '../disk/format-version.js';
import { at, removeIfThere, SNAPSHOT_ID, SNAPSHOTS } from '../disk/layout.js';
import { StoreFile } from '../disk/store-file.js';
import { PACK_CHUNKS } from '../pack/pack-format.js';
import type { SnapshotKind } from '../types.js';

/** Pages that a manifest block covers: 2 MiB of a region. */
export const BLOCK_PAGES = 512;

const MAGIC = 'LIVESNSS';
const HEADER_BYTES = 32;
const DIGEST_BYTES = 32;
const BLOCK_ENTRY_BYTES = 32;

export const MAX_STATE_BYTES = 64 << 20;
export const MAX_DESCRIPTION_BYTES = 1 << 20;
/** Arrays and objects within each other, the description itself being one: those who print it may recurse. */
const MAX_NESTING = 64;
export const MAX_REGIONS = 256;
/** 32 TiB of pages that are not zero. */
const MAX_BLOCKS = 1 << 24;
export const MAX_FILE_BYTES =
  HEADER_BYTES + MAX_DESCRIPTION_BYTES + MAX_BLOCKS * BLOCK_ENTRY_BYTES + MAX_STATE_BYTES + DIGEST_BYTES;
/**
 * What a copy takes, and a directory from elsewhere may hold: 4 TiB of pages that are not zero. A block of another
 * snapshot costs 32 bytes to name, whatever it unfolds to.
 */
export const MAX_COPIED_BLOCKS = 1 << 21;
export const MAX_COPIED_FILE_BYTES =
  HEADER_BYTES +
  MAX_DESCRIPTION_BYTES +
  MAX_COPIED_BLOCKS * BLOCK_ENTRY_BYTES +
  MAX_STATE_BYTES +
  DIGEST_BYTES;
/** Page numbers are 32 bits. */
export const MAX_REGION_BYTES = 2 ** 32 * PAGE_BYTES;
const REGION_NAME = /^[a-z0-9@._-]{1,64}$/;

/** One manifest block of a region: 512 pages, at least one of them not zero. */
export interface BlockEntry {
  /** Index into the snapshot's regions. */
  readonly region: number;
  /** Its pages begin at page 512 × block of the region. */
  readonly block: number;
  readonly nonZeroPages: number;
  /** The chunk that holds the places of the pages, and the one that holds their fingerprints. */
  readonly places: Place;
  readonly fingerprints: Place;
  /** XXH64 of the latter. */
  readonly digest: bigint;
}

export interface Place {
  readonly pack: number;
  readonly chunk: number;
}

/** A growing list of entries as they stand in the file, 32 bytes each; one is decoded when it is looked at. */
export class BlockList implements Iterable<BlockEntry> {
  #bytes: Buffer;
  #length: number;

  constructor(bytes: Buffer = Buffer.alloc(0)) {
    this.#bytes = bytes;
    this.#length = bytes.length / BLOCK_ENTRY_BYTES;
  }

  get length(): number {
    return this.#length;
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length * BLOCK_ENTRY_BYTES);
  }

  push({ places, fingerprints, digest, block, nonZeroPages, region }: BlockEntry): void {
    const offset = this.#length * BLOCK_ENTRY_BYTES;
    if (offset === this.#bytes.length) {
      const grown = Buffer.alloc(Math.max(64 * BLOCK_ENTRY_BYTES, 2 * offset));
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    const bytes = this.#bytes;
    bytes.writeUInt32LE(places.pack, offset);
    bytes.writeUInt32LE(places.chunk, offset + 4);
    bytes.writeUInt32LE(fingerprints.pack, offset + 8);
    bytes.writeUInt32LE(fingerprints.chunk, offset + 12);
    bytes.writeBigUInt64LE(digest, offset + 16);
    bytes.writeUInt32LE(block, offset + 24);
    bytes.writeUInt16LE(nonZeroPages, offset + 28);
    bytes.writeUInt16LE(region, offset + 30);
    this.#length++;
  }

  at(index: number): BlockEntry {
    const bytes = this.#bytes;
    const offset = index * BLOCK_ENTRY_BYTES;
    return {
      places: { pack: bytes.readUInt32LE(offset), chunk: bytes.readUInt32LE(offset + 4) },
      fingerprints: { pack: bytes.readUInt32LE(offset + 8), chunk: bytes.readUInt32LE(offset + 12) },
      digest: bytes.readBigUInt64LE(offset + 16),
      block: bytes.readUInt32LE(offset + 24),
      nonZeroPages: bytes.readUInt16LE(offset + 28),
      region: bytes.readUInt16LE(offset + 30),
    };
  }

  *[Symbol.iterator](): Generator<BlockEntry> {
    for (let i = 0; i < this.#length; i++) yield this.at(i);
  }
}

export interface DescribedRegion extends Region {
  readonly nonZeroPages: number;
}

/** The JSON part of the file. */
export interface SnapshotDescription {
  readonly id: string;
  readonly kind: SnapshotKind;
  readonly vm: string | null;
  readonly parent: string | null;
  readonly createdAt: string;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  /** What the save appended to packs. */
  readonly packBytes: number;
  readonly regions: readonly DescribedRegion[];
  readonly machine: unknown;
  readonly host: unknown;
}

export interface SnapshotFile {
  readonly description: SnapshotDescription;
  /** Ascending by region, then block. */
  readonly blocks: BlockList;
  readonly state: Uint8Array;
  readonly sizeBytes: number;
}

/** `snapshots/ID`, relative to the store. */
export function snapshotFile(id: string): string {
  assert(SNAPSHOT_ID.test(id), 'this is not the id of a snapshot');
  return `${SNAPSHOTS}/${id}`;
}

export const pagesOf = (sizeBytes: number): number => Math.ceil(sizeBytes / PAGE_BYTES);

/** How many pages of a block are within its region. */
export const pagesOfBlock = (regions: readonly Region[], { region, block }: BlockEntry): number =>
  Math.min(BLOCK_PAGES, pagesOf(regions[region]!.sizeBytes) - block * BLOCK_PAGES);

/**
 * Writes the file and fsyncs it; the directory is the caller's. Returns its size and its descriptor, which holds the
 * file's lock until the caller closes it. When it fails there is no file.
 */
export function writeSnapshotFile(
  dir: string,
  description: SnapshotDescription,
  blocks: BlockList,
  state: Uint8Array,
): { sizeBytes: number; fd: number } {
  const json = Buffer.from(JSON.stringify(description));
  const header = Buffer.alloc(HEADER_BYTES);
  header.write(MAGIC, 'latin1');
  header.writeUInt32LE(FORMAT_VERSION, 8);
  header.writeUInt32LE(json.length, 12);
  header.writeUInt32LE(blocks.length, 16);
  header.writeUInt32LE(state.length, 20);
  const hash = createHash('sha256');
  const parts: Uint8Array[] = [header, json, blocks.bytes, state];
  for (const part of parts) hash.update(part);
  parts.push(hash.digest());

  const path = at(dir, snapshotFile(description.id));
  const fd = createLocked(path);
  try {
    for (const part of parts) if (part.length > 0) writeFileSync(fd, part);
    fsyncSync(fd);
  } catch (error) {
    removeIfThere(path);
    closeSync(fd);
    throw error;
  }
  return { sizeBytes: parts.reduce((total, part) => total + part.length, 0), fd };
}

/** Errors: DAMAGED (with the file and what is wrong), NEWER_FORMAT. */
export function readSnapshotFile(dir: string, id: string): SnapshotFile {
  return decodeSnapshot(readWhole(dir, snapshotFile(id)), id);
}

/** Of the bytes of a whole file. Errors: as {@link readSnapshotFile}. */
export function decodeSnapshot(bytes: Buffer, id: string): SnapshotFile {
  const file = snapshotFile(id);
  requireSize(bytes, bytes.length, file, () => bytes);
  const jsonBytes = bytes.readUInt32LE(12);
  const blockCount = bytes.readUInt32LE(16);
  const stateBytes = bytes.readUInt32LE(20);
  if (!isDigestRight(bytes)) throw new DamageError(file, null, 'the snapshot does not match its root digest');

  const description = parseDescription(file, bytes.subarray(HEADER_BYTES, HEADER_BYTES + jsonBytes), id);
  const blocksAt = HEADER_BYTES + jsonBytes;
  const blocks = new BlockList(bytes.subarray(blocksAt, blocksAt + blockCount * BLOCK_ENTRY_BYTES));
  let previous: BlockEntry | null = null;
  for (let i = 0; i < blockCount; i++) {
    const entry = blocks.at(i);
    const region = description.regions[entry.region];
    if (
      !region ||
      entry.block * BLOCK_PAGES >= pagesOf(region.sizeBytes) ||
      entry.nonZeroPages < 1 ||
      entry.nonZeroPages > BLOCK_PAGES ||
      !isPlace(entry.places) ||
      !isPlace(entry.fingerprints) ||
      (previous &&
        (previous.region > entry.region ||
          (previous.region === entry.region && previous.block >= entry.block)))
    )
      throw new DamageError(file, blocksAt + i * BLOCK_ENTRY_BYTES, 'a manifest block is listed wrongly');
    previous = entry;
  }
  const digestAt = bytes.length - DIGEST_BYTES;
  const stateAt = digestAt - stateBytes;
  return { description, blocks, state: bytes.subarray(stateAt, digestAt), sizeBytes: bytes.length };
}

/** What the file says is its root digest, in hex: another content has another. Errors: DAMAGED. */
export function rootDigest(dir: string, id: string): string {
  const opened = new StoreFile(dir, snapshotFile(id));
  try {
    const digestAt = Math.max(0, opened.sizeBytes - DIGEST_BYTES);
    return opened.read(digestAt, DIGEST_BYTES).toString('hex');
  } finally {
    opened.close();
  }
}

const isPlace = ({ pack, chunk }: Place): boolean => pack !== 0 && chunk < PACK_CHUNKS;

/** Reads the file after its header has accounted for its size to the byte. */
function readWhole(dir: string, file: string): Buffer {
  const opened = new StoreFile(dir, file);
  try {
    const size = opened.sizeBytes;
    const header = opened.read(0, Math.min(size, HEADER_BYTES));
    requireSize(header, size, file, () => readAll(opened));
    return readAll(opened);
  } finally {
    opened.close();
  }
}

/** The header must account for the size to the byte. Errors: DAMAGED, NEWER_FORMAT. */
function requireSize(header: Buffer, size: number, file: string, readWhole: () => Buffer): void {
  if (header.length < HEADER_BYTES || header.toString('latin1', 0, 8) !== MAGIC)
    throw new DamageError(file, 0, 'this is not a snapshot');
  if (header.readUInt32LE(8) > FORMAT_VERSION && size >= HEADER_BYTES + DIGEST_BYTES) {
    if (isDigestRight(readWhole())) refuseNewer(file, header.readUInt32LE(8));
  }
  const jsonBytes = header.readUInt32LE(12);
  const blockCount = header.readUInt32LE(16);
  const stateBytes = header.readUInt32LE(20);
  if (
    jsonBytes > MAX_DESCRIPTION_BYTES ||
    blockCount > MAX_BLOCKS ||
    stateBytes > MAX_STATE_BYTES ||
    HEADER_BYTES + jsonBytes + blockCount * BLOCK_ENTRY_BYTES + stateBytes + DIGEST_BYTES !== size
  )
    throw new DamageError(file, 0, 'the header does not account for the size of the file');
}

function readAll(opened: StoreFile): Buffer {
  const { file, sizeBytes } = opened;
  if (sizeBytes > MAX_FILE_BYTES)
    throw new DamageError(file, null, `a snapshot cannot have ${sizeBytes} bytes`);
  return opened.read(0, sizeBytes);
}

/** The last 32 bytes are the SHA-256 of all before them, in every version. */
function isDigestRight(bytes: Buffer): boolean {
  const digestAt = bytes.length - DIGEST_BYTES;
  const digest = createHash('sha256').update(bytes.subarray(0, digestAt)).digest();
  return Buffer.compare(digest, bytes.subarray(digestAt)) === 0;
}

/** More than a store can have, and so little that the size of a file can be added. */
export const MAX_PACK_TOTAL = 2 ** 52;

export const isSize = (value: unknown, limit = Number.MAX_SAFE_INTEGER): boolean =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) <= limit;

/** A moment as text, such as an ISO 8601 date and time. */
export const isTime = (value: unknown): boolean =>
  typeof value === 'string' && value.length <= 64 && !Number.isNaN(Date.parse(value));

/** Of the JSON of a file. Errors: DAMAGED. */
export function parseDescription(file: string, json: Buffer, id: string): SnapshotDescription {
  let value: unknown;
  try {
    value = JSON.parse(json.toString('utf8'));
  } catch {
    throw new DamageError(file, HEADER_BYTES, 'the description is not JSON');
  }
  return requireDescription(file, value, id);
}

/**
 * The digest has vouched for accidents; this checks what another program may have written. `described`: as JSON says
 * it. Errors: DAMAGED.
 */
export function requireDescription(file: string, described: unknown, id: string): SnapshotDescription {
  const wrong = (why: string): DamageError => new DamageError(file, HEADER_BYTES, why);
  if (!isShallow(described)) throw wrong('the description is nested too deeply');
  const value = described as Partial<SnapshotDescription> | null;
  if (value?.id !== id) throw wrong('the description is of another snapshot');
  if (
    (value.kind !== 'machine' && value.kind !== 'file') ||
    !(value.vm === null || typeof value.vm === 'string') ||
    !(value.parent === null || (typeof value.parent === 'string' && SNAPSHOT_ID.test(value.parent))) ||
    !isTime(value.createdAt) ||
    !isSize(value.memoryBytes) ||
    !isSize(value.diskBytes) ||
    !isSize(value.packBytes, MAX_PACK_TOTAL) ||
    !areRegions(value.regions) ||
    !value.regions.every(({ nonZeroPages, sizeBytes }) => isSize(nonZeroPages, pagesOf(sizeBytes)))
  )
    throw wrong('the description lacks something');
  return value as SnapshotDescription;
}

/** Looks level by level: JSON.parse copes with any depth, what recurses does not. */
function isShallow(value: unknown): boolean {
  let level = [value];
  for (let depth = 0; depth <= MAX_NESTING; depth++) {
    const nested = level.filter((part) => typeof part === 'object' && part !== null) as object[];
    if (nested.length === 0) return true;
    level = nested.flatMap((part) => Object.values(part));
  }
  return false;
}

/** Whether a description can be written, and then be read. */
export const isDescribable = (description: SnapshotDescription): boolean =>
  isShallow(description) && Buffer.byteLength(JSON.stringify(description)) <= MAX_DESCRIPTION_BYTES;

/** Whether names and sizes are those that a snapshot may have. */
export function areRegions(regions: unknown): regions is Region[] {
  if (!Array.isArray(regions) || regions.length > MAX_REGIONS) return false;
  const names = new Set<string>();
  for (const region of regions as Partial<Region>[]) {
    const { name, sizeBytes } = region ?? {};
    if (typeof name !== 'string' || !REGION_NAME.test(name) || names.has(name)) return false;
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes! < 0 || sizeBytes! > MAX_REGION_BYTES) return false;
    names.add(name);
  }
  return true;
}
