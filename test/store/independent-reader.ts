/**
 * A second reader of stores, written from docs/format.md and sharing no code with src/store: what it gives is what the
 * page promises. It needs no index (the files are the truth), verifies everything the page says a reader can verify,
 * and is made to be read, not to be fast.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import xxhash from 'xxhash-wasm';

const PAGE = 4096;
const BLOCK_PAGES = 512;
const { h64Raw } = await xxhash();

const xxh64 = (bytes: Uint8Array, seed = 0n): bigint => h64Raw(bytes, seed);
const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();

function must(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what);
}

interface Frame {
  readonly offset: number;
  readonly payloadBytes: number;
  readonly first: number;
  readonly chunks: number;
  readonly flags: number;
}

class Pack {
  readonly #bytes: Buffer;
  readonly #frames: Frame[] = [];
  readonly #numbers: number[] = [];
  readonly #fingerprints: bigint[] = [];
  readonly #digests: Buffer[] = [];

  constructor(
    path: string,
    readonly number: number,
    generation: number,
  ) {
    const bytes = readFileSync(path);
    this.#bytes = bytes;
    must(bytes.toString('latin1', 0, 8) === 'LIVESNPK', 'the header is not of a pack');
    must(bytes.readUInt32LE(8) === 1, 'the format version is not 1');
    must(bytes.readUInt32LE(12) === number && bytes.readUInt32LE(16) === generation, 'another pack');
    must(bytes.readBigUInt64LE(24) === xxh64(bytes.subarray(0, 24)), 'the header’s checksum is wrong');

    const footer = bytes.subarray(bytes.length - 64);
    must(footer.toString('latin1', 0, 8) === 'LIVESNPT', 'the pack is not sealed');
    must(footer.readBigUInt64LE(56) === xxh64(footer.subarray(0, 56)), 'the footer’s checksum is wrong');
    must(footer.readUInt32LE(8) === 1, 'the format version is not 1');
    must(footer.readUInt32LE(12) === number && footer.readUInt32LE(16) === generation, 'another pack');
    const frames = footer.readUInt32LE(20);
    const chunks = footer.readUInt32LE(24);
    const trailer = Number(footer.readBigUInt64LE(32));
    must(trailer + frames * 16 + chunks * 44 + 64 === bytes.length, 'the counts do not give the size');
    const numbersAt = trailer + frames * 16;
    const fingerprintsAt = numbersAt + chunks * 4;
    const digestsAt = fingerprintsAt + chunks * 8;
    const end = digestsAt + chunks * 32;
    must(footer.readBigUInt64LE(40) === xxh64(bytes.subarray(trailer, fingerprintsAt)), 'wrong places');
    must(footer.readBigUInt64LE(48) === xxh64(bytes.subarray(fingerprintsAt, end)), 'wrong identities');

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
      this.#frames.push(frame);
    }
    must(offset === trailer && position === chunks, 'the frames do not fill the pack');
    for (let i = 0; i < chunks; i++) {
      this.#numbers.push(bytes.readUInt32LE(numbersAt + i * 4));
      this.#fingerprints.push(bytes.readBigUInt64LE(fingerprintsAt + i * 8));
      this.#digests.push(bytes.subarray(digestsAt + i * 32, digestsAt + (i + 1) * 32));
    }
    must(
      this.#numbers.every((n, i) => n < 32768 && (i === 0 || n > this.#numbers[i - 1]!)),
      'the chunk numbers do not ascend',
    );
  }

  /** A chunk by its number, against the frame's checksum and against fingerprint and SHA-256 of the lists. */
  chunk(number: number): Buffer {
    const position = this.#numbers.indexOf(number);
    must(position >= 0, `pack ${this.number} has no chunk ${number}`);
    const index = this.#frames.findIndex(({ first, chunks }) => position < first + chunks);
    const { offset, payloadBytes, first, chunks, flags } = this.#frames[index]!;
    const frame = this.#bytes.subarray(offset, offset + 16 + 2 * chunks + payloadBytes);
    const seed = BigInt(this.number) + (BigInt(index) << 32n);
    must(frame.readBigUInt64LE(0) === xxh64(frame.subarray(8), seed), 'a frame’s checksum is wrong');
    must(frame.readUInt32LE(8) === payloadBytes && frame.readUInt16LE(12) === chunks, 'another frame');
    must(frame.readUInt16LE(14) === flags, 'another frame');
    for (let i = 0; i < chunks; i++)
      must(frame.readUInt16LE(16 + 2 * i) === this.#numbers[first + i], 'a frame lists other chunks');
    must((flags & 4) === 0, `chunk ${number} of pack ${this.number} was lost`);
    const payload = frame.subarray(16 + 2 * chunks);
    const raw = (flags & 1) === 0 ? payload : lz4Block(payload, chunks * PAGE);
    must(raw.length === chunks * PAGE, 'a frame has the wrong length');
    const page = raw.subarray((position - first) * PAGE, (position - first + 1) * PAGE);
    must(sha256(page).equals(this.#digests[position]!), 'a chunk’s SHA-256 is wrong');
    must((xxh64(page) || 1n) === this.#fingerprints[position], 'a chunk’s fingerprint is wrong');
    return page;
  }
}

/** The LZ4 block format: tokens of literals and matches. */
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

export interface ReadSnapshot {
  readonly description: Record<string, unknown> & { regions: { name: string; sizeBytes: number }[] };
  readonly regions: Record<string, Buffer>;
  readonly state: Buffer;
}

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

  /** Of a pack's generations the lowest on disk counts. */
  #pack(number: number): Pack {
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

  read(id: string): ReadSnapshot {
    const bytes = readFileSync(join(this.dir, 'snapshots', id));
    must(bytes.toString('latin1', 0, 8) === 'LIVESNSS', 'this is not a snapshot');
    must(bytes.readUInt32LE(8) === 1, 'the format version is not 1');
    const descriptionBytes = bytes.readUInt32LE(12);
    const blocks = bytes.readUInt32LE(16);
    const stateBytes = bytes.readUInt32LE(20);
    const stateAt = 32 + descriptionBytes + blocks * 32;
    must(stateAt + stateBytes + 32 === bytes.length, 'the lengths do not give the size');
    must(sha256(bytes.subarray(0, -32)).equals(bytes.subarray(-32)), 'the root digest is wrong');
    const description = JSON.parse(bytes.toString('utf8', 32, 32 + descriptionBytes));
    must(description.id === id, 'the description is of another snapshot');
    const contents: Buffer[] = description.regions.map(({ sizeBytes }: { sizeBytes: number }) =>
      Buffer.alloc(Math.ceil(sizeBytes / PAGE) * PAGE),
    );
    for (let at = 32 + descriptionBytes; at < stateAt; at += 32)
      this.#readBlock(bytes.subarray(at, at + 32), contents[bytes.readUInt16LE(at + 30)]!);
    const regions: Record<string, Buffer> = {};
    description.regions.forEach(({ name, sizeBytes }: { name: string; sizeBytes: number }, i: number) => {
      must(!contents[i]!.subarray(sizeBytes).some((byte) => byte !== 0), 'there is more than the region');
      regions[name] = contents[i]!.subarray(0, sizeBytes);
    });
    return { description, regions, state: bytes.subarray(stateAt, stateAt + stateBytes) };
  }

  #readBlock(entry: Buffer, region: Buffer): void {
    const places = this.#pack(entry.readUInt32LE(0)).chunk(entry.readUInt32LE(4));
    const fingerprints = this.#pack(entry.readUInt32LE(8)).chunk(entry.readUInt32LE(12));
    must((xxh64(fingerprints) || 1n) === entry.readBigUInt64LE(16), 'a block’s digest is wrong');
    const firstPage = entry.readUInt32LE(24) * BLOCK_PAGES;
    let nonZeroPages = 0;
    for (let i = 0; i < BLOCK_PAGES; i++) {
      const pack = places.readUInt32LE(8 * i);
      const fingerprint = fingerprints.readBigUInt64LE(8 * i);
      must((pack === 0) === (fingerprint === 0n), 'a page is zero in one half of a block only');
      if (pack === 0) continue;
      nonZeroPages++;
      const page = this.#pack(pack).chunk(places.readUInt32LE(8 * i + 4));
      must((xxh64(page) || 1n) === fingerprint, 'a page is not the one that was saved');
      must((firstPage + i + 1) * PAGE <= region.length, 'a page is beyond its region');
      page.copy(region, (firstPage + i) * PAGE);
    }
    must(nonZeroPages === entry.readUInt16LE(28), 'a block has not the pages that are counted');
  }
}
