/** The part of the independent reader for segments: see independent-reader.ts. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import xxhash from 'xxhash-wasm';

const { h64Raw } = await xxhash();

function must(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what);
}

export interface SegmentEntry {
  readonly fingerprint: bigint;
  readonly pack: number;
  readonly chunk: number;
}

function isBefore(a: SegmentEntry, b: SegmentEntry): boolean {
  if (a.fingerprint !== b.fingerprint) return a.fingerprint < b.fingerprint;
  return a.pack !== b.pack ? a.pack < b.pack : a.chunk < b.chunk;
}

/** The numbers of a store's segments. */
export const segmentsOf = (dir: string): number[] =>
  readdirSync(join(dir, 'segments'))
    .filter((name) => /^[0-9a-f]{8}\.seg$/.test(name))
    .map((name) => Number.parseInt(name.slice(0, 8), 16))
    .sort((a, b) => a - b);

export function readSegment(dir: string, number: number): SegmentEntry[] {
  const bytes = readFileSync(join(dir, 'segments', `${number.toString(16).padStart(8, '0')}.seg`));
  must(bytes.toString('latin1', 0, 8) === 'LIVESNSG', 'this is not a segment');
  must(bytes.readUInt32LE(8) === 1, 'the format version is not 1');
  must(bytes.readUInt32LE(12) === number, 'the number is not that of the name');
  const count = bytes.readUInt32LE(16);
  const blocks = bytes.readUInt32LE(20);
  must(blocks === blocksFor(count), 'the number of filter blocks is wrong');
  must(count >= 1 && 32 + count * 16 + blocks * 64 + 8 === bytes.length, 'the count does not give the size');
  must(!bytes.subarray(24, 32).some((byte) => byte !== 0), 'a reserved field is not 0');
  const checksum = h64Raw(bytes.subarray(0, -8), 0n);
  must(bytes.readBigUInt64LE(bytes.length - 8) === checksum, 'the checksum is wrong');
  const entries = Array.from({ length: count }, (_, i) => ({
    fingerprint: bytes.readBigUInt64LE(32 + 16 * i),
    pack: bytes.readUInt32LE(40 + 16 * i),
    chunk: bytes.readUInt32LE(44 + 16 * i),
  }));
  must(
    entries.every((entry, i) => i === 0 || isBefore(entries[i - 1]!, entry)),
    'the entries do not ascend',
  );
  must(
    filterOf(entries, blocks).equals(bytes.subarray(32 + count * 16, -8)),
    'the filter does not match the entries',
  );
  return entries;
}

/** The smallest power of two with ten bits an entry; 0 for fewer than 512 entries. */
function blocksFor(entries: number): number {
  let blocks = 1;
  while (blocks * 512 < entries * 10) blocks *= 2;
  return entries < 512 ? 0 : blocks;
}

function filterOf(entries: readonly SegmentEntry[], blocks: number): Buffer {
  const filter = Buffer.alloc(blocks * 64);
  if (blocks > 0)
    for (const { fingerprint } of entries) {
      const block = Number((fingerprint * BigInt(blocks)) >> 64n);
      for (const shift of [0n, 9n, 18n]) {
        const bit = Number((fingerprint >> shift) & 511n);
        filter[block * 64 + (bit >> 3)]! |= 1 << (bit & 7);
      }
    }
  return filter;
}
