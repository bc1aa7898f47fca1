/** Regions of stored snapshots behind native readers, for tests. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { basename, join } from 'node:path';
import { pageOps } from '../../src/native/pages.js';
import {
  closeRegionReader,
  openRegionReader,
  type RegionReader,
  readRegion,
  regionReaderError,
} from '../../src/native/region-reader.js';
import { BLOCK_ENTRY_BYTES } from '../../src/store/snapshot/block-list.js';
import { readSnapshotFile } from '../../src/store/snapshot/snapshot-file.js';
import { onDrop } from './scratch.js';

const { EBADMSG, EOPNOTSUPP } = constants.errno;

/** The entries of a region's manifest blocks, as stored. */
export function blocksOf(dir: string, id: string, name: string): { sizeBytes: number; blocks: Uint8Array } {
  const { blocks, description } = readSnapshotFile(dir, id);
  const region = description.regions.findIndex((each) => each.name === name);
  const own = [];
  for (let i = 0; i < blocks.length; i++)
    if (blocks.at(i).region === region)
      own.push(blocks.bytes.subarray(i * BLOCK_ENTRY_BYTES, (i + 1) * BLOCK_ENTRY_BYTES));
  return { sizeBytes: description.regions[region]!.sizeBytes, blocks: Buffer.concat(own) };
}

/** Opens a region; closed with the test. */
export function openRegion(
  context: Mocha.Context,
  dir: string,
  id: string,
  name: string,
  options: { generations?: Uint32Array; fingerprintBits?: number } = {},
): { reader: RegionReader; sizeBytes: number } {
  const { sizeBytes, blocks } = blocksOf(dir, id, name);
  const reader = openRegionReader({ packsDir: join(dir, 'packs'), sizeBytes, blocks, ...options });
  onDrop(context, () => closeRegionReader(reader));
  return { reader, sizeBytes };
}

export const packNames = (dir: string): string[] => readdirSync(join(dir, 'packs')).sort();

/** Reads bytes that must be readable. */
export function bytesOf(reader: RegionReader, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length, 0xee);
  const errno = readRegion(reader, offset, bytes);
  assert.equal(errno, 0, errno === 0 ? '' : JSON.stringify(regionReaderError(reader)));
  return bytes;
}

/**
 * Reads a region in pieces: each is right, or fails because the store is damaged or of a newer format. Returns how many
 * failed.
 */
export function failuresOf(reader: RegionReader, expected: Buffer, pieceBytes = 64 << 10): number {
  let failures = 0;
  for (let at = 0; at < expected.length; at += pieceBytes) {
    const piece = Buffer.alloc(Math.min(pieceBytes, expected.length - at), 0xee);
    const errno = readRegion(reader, at, piece);
    if (errno === 0)
      assert.ok(piece.equals(expected.subarray(at, at + piece.length)), `wrong bytes at ${at}`);
    else {
      assert.ok(errno === EBADMSG || errno === EOPNOTSUPP, `errno ${errno}`);
      assert.equal(regionReaderError(reader)!.errno, errno);
      failures++;
    }
  }
  return failures;
}

/** Makes every checksum of a changed pack right again, as someone who forges a pack would (docs/format.md, "Packs"). */
export function reseal(bytes: Buffer, number: number): void {
  const footer = bytes.length - 64;
  const trailer = Number(bytes.readBigUInt64LE(footer + 32) & 0xffff_ffffn);
  const frames = bytes.readUInt32LE(footer + 20);
  const tables = frames * 16 + bytes.readUInt32LE(footer + 24) * 4;
  const isInside = (offset: number, length: number): boolean => offset + length <= footer;
  for (let index = 0; index < frames && isInside(trailer, (index + 1) * 16); index++) {
    const frame = bytes.readUInt32LE(trailer + index * 16);
    const stored = bytes.readUInt32LE(trailer + index * 16 + 4);
    const length = 16 + 2 * bytes.readUInt16LE(trailer + index * 16 + 12) + stored;
    if (isInside(frame, length))
      pageOps.checksum(bytes, frame + 8, length - 8, number, index, bytes.subarray(frame));
  }
  if (isInside(trailer, tables)) pageOps.checksum(bytes, trailer, tables, 0, 0, bytes.subarray(footer + 40));
  pageOps.checksum(bytes, footer, 56, 0, 0, bytes.subarray(footer + 56));
  pageOps.checksum(bytes, 0, 24, 0, 0, bytes.subarray(24));
}

/** Copies a pack as one of another generation. */
export function copyAsGeneration(path: string, generation: number): void {
  const bytes = readFileSync(path);
  for (const at of [16, bytes.length - 64 + 16]) bytes.writeUInt32LE(generation, at);
  reseal(bytes, Number.parseInt(basename(path), 16));
  writeFileSync(path.replace(/-\d+\.pack$/, `-${generation}.pack`), bytes);
}
