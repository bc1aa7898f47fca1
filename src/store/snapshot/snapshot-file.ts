/**
 * The file `snapshots/ID`: everything about a snapshot, under one root digest (docs/format.md, "Snapshots").
 *
 * Invariants:
 * - The file and its packs are enough to list and restore the snapshot, without the index.
 * - The file is written once and never changed.
 * - Nothing in it is used before the digest was checked and every number was found in bounds.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { closeSync, fsyncSync, writeFileSync } from 'node:fs';
import { DamageError } from '../disk/damage.js';
import { createLocked } from '../disk/file-locks.js';
import { DISK_SNAPSHOT_VERSION, FORMAT_VERSION, refuseNewer } from '../disk/format-version.js';
import { at, removeIfThere, SNAPSHOT_ID, SNAPSHOTS, TEMPORARY } from '../disk/layout.js';
import { StoreFile } from '../disk/store-file.js';
import { BLOCK_ENTRY_BYTES, BlockList, findInvalidEntry } from './block-list.js';
import {
  DESCRIPTION_OFFSET,
  MAX_DESCRIPTION_BYTES,
  parseDescription,
  type SnapshotDescription,
} from './description.js';

const MAGIC = 'LIVESNSS';
const HEADER_BYTES = DESCRIPTION_OFFSET;
const DIGEST_BYTES = 32;

export const MAX_STATE_BYTES = 64 << 20;
/** 32 TiB of non-zero pages. */
const MAX_BLOCKS = 1 << 24;
const MAX_FILE_BYTES =
  HEADER_BYTES + MAX_DESCRIPTION_BYTES + MAX_BLOCKS * BLOCK_ENTRY_BYTES + MAX_STATE_BYTES + DIGEST_BYTES;
/**
 * The limit for snapshots from elsewhere, which a copy receives or an export holds: 4 TiB of non-zero pages. It is
 * lower because 32 bytes are enough to refer to a block of another snapshot, however large its pages are.
 */
export const MAX_COPIED_BLOCKS = 1 << 21;
export const MAX_COPIED_FILE_BYTES =
  HEADER_BYTES +
  MAX_DESCRIPTION_BYTES +
  MAX_COPIED_BLOCKS * BLOCK_ENTRY_BYTES +
  MAX_STATE_BYTES +
  DIGEST_BYTES;
export interface SnapshotFile {
  readonly description: SnapshotDescription;
  /** Ascending by region, then block. */
  readonly blocks: BlockList;
  readonly state: Uint8Array;
  readonly sizeBytes: number;
}

/** `snapshots/ID`, relative to the store. */
export function snapshotFile(id: string): string {
  assert(SNAPSHOT_ID.test(id), 'not a snapshot ID');
  return `${SNAPSHOTS}/${id}`;
}

/** A file that was written. The caller closes `fd`, which holds the lock of the file. */
export interface WrittenSnapshot {
  readonly path: string;
  readonly sizeBytes: number;
  readonly fd: number;
}

/** Writes the file and fsyncs it. The caller fsyncs the directory. After an error there is no file. */
export function writeSnapshotFile(
  dir: string,
  description: SnapshotDescription,
  blocks: BlockList,
  state: Uint8Array,
): WrittenSnapshot {
  return write(at(dir, snapshotFile(description.id)), description, blocks, state, { sync: true });
}

/**
 * Writes the file under a temporary name, without an fsync. The caller renames it to {@link snapshotFile} when it is
 * fsynced and its packs have durable names. After an error there is no file.
 */
export function writeUnnamedSnapshot(
  dir: string,
  description: SnapshotDescription,
  blocks: BlockList,
  state: Uint8Array,
): WrittenSnapshot {
  const path = at(dir, snapshotFile(description.id) + TEMPORARY);
  return write(path, description, blocks, state, { sync: false });
}

function write(
  path: string,
  description: SnapshotDescription,
  blocks: BlockList,
  state: Uint8Array,
  { sync }: { sync: boolean },
): WrittenSnapshot {
  const json = Buffer.from(JSON.stringify(description));
  const header = Buffer.alloc(HEADER_BYTES);
  header.write(MAGIC, 'latin1');
  header.writeUInt32LE(description.kind === 'disk' ? DISK_SNAPSHOT_VERSION : FORMAT_VERSION, 8);
  header.writeUInt32LE(json.length, 12);
  header.writeUInt32LE(blocks.length, 16);
  header.writeUInt32LE(state.length, 20);
  const hash = createHash('sha256');
  const parts: Uint8Array[] = [header, json, blocks.bytes, state];
  for (const part of parts) hash.update(part);
  parts.push(hash.digest());

  const fd = createLocked(path);
  try {
    for (const part of parts) if (part.length > 0) writeFileSync(fd, part);
    if (sync) fsyncSync(fd);
  } catch (error) {
    removeIfThere(path);
    closeSync(fd);
    throw error;
  }
  return { path, sizeBytes: parts.reduce((total, part) => total + part.length, 0), fd };
}

/** Errors: DAMAGED, NEWER_FORMAT. */
export function readSnapshotFile(dir: string, id: string): SnapshotFile {
  return decodeSnapshot(readWhole(dir, snapshotFile(id)), id);
}

/** Reads the file; damage names the snapshot. Errors: DAMAGED, NEWER_FORMAT. */
export function readNamed(dir: string, id: string): SnapshotFile {
  try {
    return readSnapshotFile(dir, id);
  } catch (error) {
    throw error instanceof DamageError ? error.in(id) : error;
  }
}

/** Decodes the bytes of a whole file. Errors: DAMAGED, NEWER_FORMAT. */
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
  const invalid = findInvalidEntry(blocks, description.regions);
  if (invalid >= 0)
    throw new DamageError(
      file,
      blocksAt + invalid * BLOCK_ENTRY_BYTES,
      `entry ${invalid} of the manifest blocks is not valid`,
    );
  const digestAt = bytes.length - DIGEST_BYTES;
  const stateAt = digestAt - stateBytes;
  return { description, blocks, state: bytes.subarray(stateAt, digestAt), sizeBytes: bytes.length };
}

/** The root digest that the file states, in hex. It is not verified here. Errors: DAMAGED. */
export function rootDigest(dir: string, id: string): string {
  const opened = new StoreFile(dir, snapshotFile(id));
  try {
    const digestAt = Math.max(0, opened.sizeBytes - DIGEST_BYTES);
    return opened.read(digestAt, DIGEST_BYTES).toString('hex');
  } finally {
    opened.close();
  }
}

/** Reads the file, once its header has been checked against its size. */
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

/** Checks that the parts listed in the header add up to the size. Errors: DAMAGED, NEWER_FORMAT. */
function requireSize(header: Buffer, size: number, file: string, readWhole: () => Buffer): void {
  if (header.length < HEADER_BYTES || header.toString('latin1', 0, 8) !== MAGIC)
    throw new DamageError(file, 0, 'the file is not a snapshot');
  const version = header.readUInt32LE(8);
  if (version > DISK_SNAPSHOT_VERSION && size >= HEADER_BYTES + DIGEST_BYTES) {
    if (isDigestRight(readWhole())) refuseNewer(file, version, DISK_SNAPSHOT_VERSION);
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
    throw new DamageError(file, 0, 'the sizes in the header do not add up to the size of the file');
}

function readAll(opened: StoreFile): Buffer {
  const { file, sizeBytes } = opened;
  if (sizeBytes > MAX_FILE_BYTES)
    throw new DamageError(file, null, `the file has ${sizeBytes} bytes, more than any snapshot`);
  return opened.read(0, sizeBytes);
}

/** In every version the last 32 bytes are the SHA-256 of all bytes before them. */
function isDigestRight(bytes: Buffer): boolean {
  const digestAt = bytes.length - DIGEST_BYTES;
  const digest = createHash('sha256').update(bytes.subarray(0, digestAt)).digest();
  return Buffer.compare(digest, bytes.subarray(digestAt)) === 0;
}
