/**
 * An independent reader of stores, written from docs/format.md without any code of src/store. A test that compares the
 * two shows that the page is right and complete.
 *
 * It reads files only, not the index, and verifies everything that the page says a reader can verify. It is written to
 * be read, not to be fast.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { blake3 } from '@noble/hashes/blake3';
import xxhash from 'xxhash-wasm';

const PAGE = 4096;
const BLOCK_PAGES = 512;
const { h64Raw } = await xxhash();

const xxh64 = (bytes: Uint8Array, seed = 0n): bigint => h64Raw(bytes, seed);
const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();
/** The digests of chunks, by their ID. */
const DIGESTS = [sha256, (bytes: Uint8Array): Buffer => Buffer.from(blake3(bytes))];

function must(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what);
}

type Frame = Record<'offset' | 'payloadBytes' | 'first' | 'chunks' | 'flags', number>;

class Pack {
  readonly #bytes: Buffer;
  readonly effort: number;
  /** The ID of the digests. */
  readonly digest: number;
  readonly frames: Frame[] = [];
  /** Ascending. Fingerprints and digests are in the same order; those of a lost chunk are 0 where they are unknown. */
  readonly numbers: number[] = [];
  readonly fingerprints: bigint[] = [];
  readonly digests: Buffer[] = [];

  constructor(
    path: string,
    readonly number: number,
    readonly generation: number,
  ) {
    const bytes = readFileSync(path);
    this.#bytes = bytes;
    must(bytes.toString('latin1', 0, 8) === 'LIVESNPK', 'this is not a pack');
    const version = bytes.readUInt32LE(8);
    must(version === 1 || version === 2, 'the format version is neither 1 nor 2');
    must(bytes.readUInt32LE(12) === number && bytes.readUInt32LE(16) === generation, 'another pack');
    must(bytes.readUInt32LE(20) === 0, 'a reserved field is not 0');
    must(bytes.readBigUInt64LE(24) === xxh64(bytes.subarray(0, 24)), 'the checksum of the header is wrong');

    const footer = bytes.subarray(bytes.length - 64);
    must(footer.toString('latin1', 0, 8) === 'LIVESNPT', 'the pack is not sealed');
    must(footer.readBigUInt64LE(56) === xxh64(footer.subarray(0, 56)), 'the checksum of the footer is wrong');
    must(footer.readUInt32LE(8) === version, 'header and footer have different versions');
    must(footer.readUInt32LE(12) === number && footer.readUInt32LE(16) === generation, 'another pack');
    this.effort = version === 1 ? footer.readUInt32LE(28) : footer.readUInt16LE(28);
    this.digest = version === 1 ? 0 : footer.readUInt16LE(30);
    must(this.digest < DIGESTS.length, 'the ID of the digests is unknown');
    const frames = footer.readUInt32LE(20);
    const chunks = footer.readUInt32LE(24);
    const trailer = Number(footer.readBigUInt64LE(32));
    must(trailer + frames * 16 + chunks * 44 + 64 === bytes.length, 'the counts do not give the size');
    const numbersAt = trailer + frames * 16;
    const fingerprintsAt = numbersAt + chunks * 4;
    const digestsAt = fingerprintsAt + chunks * 8;
    const end = digestsAt + chunks * 32;
    must(
      footer.readBigUInt64LE(40) === xxh64(bytes.subarray(trailer, fingerprintsAt)),
      'the checksum of the frame table and numbers is wrong',
    );
    must(
      footer.readBigUInt64LE(48) === xxh64(bytes.subarray(fingerprintsAt, end)),
      'the checksum of the fingerprints and digests is wrong',
    );

    let offset = 32;
    let position = 0;
    for (let i = 0; i < frames; i++) {
      const at = trailer + i * 16;
      const frame = {
        offset: bytes.readUInt32LE(at),
        payloadBytes: bytes.readUInt32LE(at + 4),
        first: bytes.readUInt32LE(at + 8),
        chunks: bytes.readUInt16LE(at + 12),
        flags: bytes.readUInt16LE(at + 14),
      };
      must(frame.offset === offset && frame.first === position, 'the frames leave a gap');
      offset += 16 + 2 * frame.chunks + frame.payloadBytes;
      position += frame.chunks;
      this.frames.push(frame);
    }
    must(offset === trailer && position === chunks, 'the frames do not fill the pack');
    for (let i = 0; i < chunks; i++) {
      this.numbers.push(bytes.readUInt32LE(numbersAt + i * 4));
      this.fingerprints.push(bytes.readBigUInt64LE(fingerprintsAt + i * 8));
      this.digests.push(bytes.subarray(digestsAt + i * 32, digestsAt + (i + 1) * 32));
    }
    must(
      this.numbers.every((n, i) => n < 32768 && (i === 0 || n > this.numbers[i - 1]!)),
      'the chunk numbers do not ascend',
    );
  }

  /** A chunk by its number, verified by the checksum of its frame, its fingerprint and its digest. */
  chunk(number: number): Buffer {
    const position = this.numbers.indexOf(number);
    must(position >= 0, `pack ${this.number} has no chunk ${number}`);
    const index = this.frames.findIndex(({ first, chunks }) => position < first + chunks);
    const { offset, payloadBytes, first, chunks, flags } = this.frames[index]!;
    const frame = this.#bytes.subarray(offset, offset + 16 + 2 * chunks + payloadBytes);
    const seed = BigInt(this.number) + (BigInt(index) << 32n);
    must(frame.readBigUInt64LE(0) === xxh64(frame.subarray(8), seed), 'the checksum of a frame is wrong');
    must(
      frame.readUInt32LE(8) === payloadBytes && frame.readUInt16LE(12) === chunks,
      'a frame differs from its entry in the frame table',
    );
    must(frame.readUInt16LE(14) === flags, 'a frame differs from its entry in the frame table');
    for (let i = 0; i < chunks; i++)
      must(frame.readUInt16LE(16 + 2 * i) === this.numbers[first + i], 'a frame lists other chunks');
    must((flags & 4) === 0, `chunk ${number} of pack ${this.number} was lost`);
    must(flags >>> 8 === 0, 'the codec of a frame is unknown');
    const payload = frame.subarray(16 + 2 * chunks);
    const raw = (flags & 1) === 0 ? payload : lz4Block(payload, chunks * PAGE);
    must(raw.length === chunks * PAGE, 'a frame has the wrong length');
    const page = raw.subarray((position - first) * PAGE, (position - first + 1) * PAGE);
    must(DIGESTS[this.digest]!(page).equals(this.digests[position]!), 'the digest of a chunk is wrong');
    must((xxh64(page) || 1n) === this.fingerprints[position], 'the fingerprint of a chunk is wrong');
    return page;
  }
}

/** Decodes an LZ4 block: a list of sequences, each a token, literals and a match. */
function lz4Block(input: Buffer, rawBytes: number): Buffer {
  const out = Buffer.alloc(rawBytes);
  let from = 0;
  let to = 0;
  const length = (first: number): number => {
    let total = first;
    if (first === 15)
      for (let byte = 255; byte === 255; total += byte) {
        must(from < input.length, 'an LZ4 block ends within a length');
        byte = input[from++]!;
      }
    return total;
  };
  while (from < input.length) {
    const token = input[from++]!;
    const literals = length(token >> 4);
    must(from + literals <= input.length && to + literals <= rawBytes, 'an LZ4 literal is too long');
    input.copy(out, to, from, from + literals);
    from += literals;
    to += literals;
    if (from === input.length) break; // the last sequence has no match
    must(from + 2 <= input.length, 'an LZ4 block ends within an offset');
    const distance = input.readUInt16LE(from);
    from += 2;
    const match = length(token & 15) + 4;
    must(distance > 0 && distance <= to && to + match <= rawBytes, 'an LZ4 match is out of bounds');
    for (let i = 0; i < match; i++, to++) out[to] = out[to - distance]!;
  }
  must(to === rawBytes, 'an LZ4 block has the wrong length');
  return out;
}

export interface Place {
  readonly pack: number;
  readonly chunk: number;
}

interface BlockEntry {
  readonly places: Place;
  readonly fingerprints: Place;
  readonly digest: bigint;
  readonly block: number;
  readonly nonZeroPages: number;
  readonly region: number;
}

type Description = Record<string, unknown> & {
  regions: { name: string; sizeBytes: number; nonZeroPages: number }[];
};

export interface SnapshotFile {
  readonly description: Description;
  readonly blocks: readonly BlockEntry[];
  readonly state: Buffer;
  readonly sizeBytes: number;
}

export type ReadSnapshot = Pick<SnapshotFile, 'description' | 'state'> & { regions: Record<string, Buffer> };

export class IndependentReader {
  readonly #packs = new Map<number, Pack>();

  constructor(readonly dir: string) {}

  ids(): string[] {
    return readdirSync(join(this.dir, 'snapshots'))
      .filter((name) => /^[0-9a-f]{32}$/.test(name))
      .sort();
  }

  tags(): Record<string, string> {
    const tags: Record<string, string> = {};
    for (const label of readdirSync(join(this.dir, 'tags')))
      if (!label.endsWith('.tmp')) tags[label] = readFileSync(join(this.dir, 'tags', label), 'latin1').trim();
    return tags;
  }

  /** The numbers of all packs. */
  packs(): number[] {
    const numbers = readdirSync(join(this.dir, 'packs'))
      .filter((name) => /^[0-9a-f]{8}-[0-9]+\.pack$/.test(name))
      .map((name) => Number.parseInt(name.slice(0, 8), 16));
    return [...new Set(numbers)].sort((a, b) => a - b);
  }

  /** Reads the lowest generation of a pack, which is the valid one. */
  pack(number: number): Pack {
    let pack = this.#packs.get(number);
    if (!pack) {
      const prefix = `${number.toString(16).padStart(8, '0')}-`;
      const generations = readdirSync(join(this.dir, 'packs'))
        .filter((name) => name.startsWith(prefix) && name.endsWith('.pack'))
        .map((name) => Number(name.slice(9, -5)));
      must(generations.length > 0, `pack ${number} is missing`);
      const generation = Math.min(...generations);
      pack = new Pack(join(this.dir, 'packs', `${prefix}${generation}.pack`), number, generation);
      this.#packs.set(number, pack);
    }
    return pack;
  }

  /** Reads the file `snapshots/ID`, without the pages. */
  snapshot(id: string): SnapshotFile {
    const bytes = readFileSync(join(this.dir, 'snapshots', id));
    must(bytes.toString('latin1', 0, 8) === 'LIVESNSS', 'this is not a snapshot');
    must(bytes.readUInt32LE(8) <= 2, 'the format version is neither 1 nor 2');
    must(bytes.readBigUInt64LE(24) === 0n, 'a reserved field is not 0');
    const blocksAt = 32 + bytes.readUInt32LE(12);
    const stateAt = blocksAt + bytes.readUInt32LE(16) * 32;
    must(stateAt + bytes.readUInt32LE(20) + 32 === bytes.length, 'the lengths do not give the size');
    must(sha256(bytes.subarray(0, -32)).equals(bytes.subarray(-32)), 'the root digest is wrong');
    const description = JSON.parse(bytes.toString('utf8', 32, blocksAt));
    must(description.id === id, 'the description is of another snapshot');
    must(
      (description.kind === 'disk') === (bytes.readUInt32LE(8) === 2),
      'the version is not that of the kind',
    );
    const blocks: BlockEntry[] = [];
    for (let at = blocksAt; at < stateAt; at += 32)
      blocks.push({
        places: { pack: bytes.readUInt32LE(at), chunk: bytes.readUInt32LE(at + 4) },
        fingerprints: { pack: bytes.readUInt32LE(at + 8), chunk: bytes.readUInt32LE(at + 12) },
        digest: bytes.readBigUInt64LE(at + 16),
        block: bytes.readUInt32LE(at + 24),
        nonZeroPages: bytes.readUInt16LE(at + 28),
        region: bytes.readUInt16LE(at + 30),
      });
    must(
      blocks.every(({ region, block }, i) => {
        const before = blocks[i - 1];
        return !before || before.region < region || (before.region === region && before.block < block);
      }),
      'the blocks do not ascend',
    );
    return { description, blocks, state: bytes.subarray(stateAt, -32), sizeBytes: bytes.length };
  }

  read(id: string): ReadSnapshot {
    const { description, blocks, state } = this.snapshot(id);
    const contents = description.regions.map(({ sizeBytes }) =>
      Buffer.alloc(Math.ceil(sizeBytes / PAGE) * PAGE),
    );
    const nonZeroPages = contents.map(() => 0);
    for (const entry of blocks) {
      this.#readBlock(entry, contents[entry.region]!);
      nonZeroPages[entry.region]! += entry.nonZeroPages;
    }
    const regions: Record<string, Buffer> = {};
    description.regions.forEach(({ name, sizeBytes, nonZeroPages: described }, i) => {
      must(
        !contents[i]!.subarray(sizeBytes).some((byte) => byte !== 0),
        'there are bytes beyond the end of a region',
      );
      must(nonZeroPages[i] === described, 'the count of pages of a region is wrong');
      regions[name] = contents[i]!.subarray(0, sizeBytes);
    });
    return { description, regions, state };
  }

  /** The places of a block's pages that are not zero. */
  placesOf({ places }: BlockEntry): Place[] {
    const bytes = this.chunk(places);
    return Array.from({ length: BLOCK_PAGES }, (_, i) => ({
      pack: bytes.readUInt32LE(8 * i),
      chunk: bytes.readUInt32LE(8 * i + 4),
    })).filter(({ pack }) => pack !== 0);
  }

  chunk({ pack, chunk }: Place): Buffer {
    return this.pack(pack).chunk(chunk);
  }

  #readBlock(entry: BlockEntry, region: Buffer): void {
    const places = this.chunk(entry.places);
    const fingerprints = this.chunk(entry.fingerprints);
    must((xxh64(fingerprints) || 1n) === entry.digest, 'the digest of a block is wrong');
    const firstPage = entry.block * BLOCK_PAGES;
    let nonZeroPages = 0;
    for (let i = 0; i < BLOCK_PAGES; i++) {
      const place = { pack: places.readUInt32LE(8 * i), chunk: places.readUInt32LE(8 * i + 4) };
      const fingerprint = fingerprints.readBigUInt64LE(8 * i);
      must((place.pack === 0) === (fingerprint === 0n), 'a page is zero in only one half of a block');
      if (place.pack === 0) continue;
      nonZeroPages++;
      const page = this.chunk(place);
      must((xxh64(page) || 1n) === fingerprint, 'the fingerprint of a page is wrong');
      must((firstPage + i + 1) * PAGE <= region.length, 'a page is beyond its region');
      page.copy(region, (firstPage + i) * PAGE);
    }
    must(nonZeroPages === entry.nonZeroPages, 'the count of pages of a block is wrong');
  }
}
