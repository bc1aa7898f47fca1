/**
 * Reads one sealed pack (docs/format.md, "Packs"). Synchronous; used in page Workers, and on the main thread for
 * manifests.
 *
 * Invariants: nothing is believed before its checksum and its bounds were checked; everything wrong is a DamageError
 * with file and offset. The file stays open until `close`, so a pack removed meanwhile can still be read.
 */

import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError } from '../disk/damage.js';
import { isOutOfDescriptors, MAX_OPEN_FILES } from '../disk/descriptors.js';
import { lowestGeneration, packFile } from '../disk/layout.js';
import { MissingFileError, StoreFile } from '../disk/store-file.js';
import {
  checkFrame,
  decodeFooter,
  decodeFrame,
  decodePackHeader,
  FOOTER_BYTES,
  FormatError,
  FRAME_BYTES,
  FRAME_CHUNKS,
  FRAME_ENTRY_BYTES,
  FRAME_HEADER_BYTES,
  type FrameEntry,
  FrameFlag,
  FrameTable,
  frameBytes,
  MAX_FRAME_BYTES,
  MAX_PACK_BYTES,
  PACK_CHUNKS,
  PACK_HEADER_BYTES,
  type PackFooter,
  type PackName,
  SHA256_BYTES,
  sum,
} from './pack-format.js';

/** Where a pack's bytes come from: its file, or what a copy has fetched of it. */
export type PackBytes = Pick<StoreFile, 'sizeBytes' | 'readInto' | 'close'>;

export interface PackLists {
  readonly footer: PackFooter;
  readonly frames: FrameTable;
  readonly numbers: Uint32Array;
  readonly isSealed: boolean;
}

let lastSerial = 0;

export class PackReader {
  /** Relative to the store. */
  readonly file: string;
  readonly sizeBytes: number;
  readonly footer: PackFooter;
  readonly frames: FrameTable;
  /** Ascending; the position in it is the position in every list of the pack. */
  readonly numbers: Uint32Array;
  /** False: the lists could not be read, and were made from the frames (see `salvage`). */
  readonly isSealed: boolean;
  /** A number that no other reader of this thread has. */
  readonly serial = ++lastSerial;
  readonly #bytes: PackBytes;

  /**
   * `bytes`: where they come from, if not from the pack's file. `salvage`: what is wrong with header and trailer is put up with, and the pack is read from its frames, up to the
   * first that is damaged; `lists`: what that gave before. Errors: DAMAGED, NEWER_FORMAT.
   */
  constructor(
    readonly ops: PageOps,
    dir: string,
    readonly pack: PackName,
    {
      salvage = false,
      lists: known = null,
      bytes,
    }: { salvage?: boolean; lists?: PackLists | null; bytes?: PackBytes } = {},
  ) {
    this.file = packFile(pack.number, pack.generation);
    this.#bytes = bytes ?? new StoreFile(dir, this.file);
    this.sizeBytes = this.#bytes.sizeBytes;
    try {
      if (this.sizeBytes < PACK_HEADER_BYTES + FOOTER_BYTES || this.sizeBytes > MAX_PACK_BYTES)
        throw new DamageError(this.file, null, `a pack cannot have ${this.sizeBytes} bytes`);
      const header = this.#read(0, PACK_HEADER_BYTES);
      if (!salvage) this.#checked(0, () => decodePackHeader(ops, header, pack, this.file));
      const lists = known ?? (salvage ? (this.#tryLists() ?? this.#scan()) : this.#readLists());
      ({ footer: this.footer, frames: this.frames, numbers: this.numbers } = lists);
      this.isSealed = lists.isSealed;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #readLists(): PackLists {
    const { ops, pack } = this;
    const footerAt = this.sizeBytes - FOOTER_BYTES;
    const footer = this.#read(footerAt, FOOTER_BYTES);
    const decoded = this.#checked(footerAt, () => decodeFooter(ops, footer, pack, this.sizeBytes, this.file));
    const { frames, chunks, trailerOffset, placesChecksum } = decoded;
    const places = this.#read(trailerOffset, frames * FRAME_ENTRY_BYTES + chunks * 4);
    if (sum(ops, places) !== placesChecksum)
      throw new DamageError(this.file, trailerOffset, 'the list of places does not match its checksum');
    return { footer: decoded, isSealed: true, ...this.#decodePlaces(decoded, places) };
  }

  #tryLists(): PackLists | null {
    try {
      return this.#readLists();
    } catch (error) {
      if (error instanceof DamageError) return null;
      throw error;
    }
  }

  /** Reads frame after frame, each of which says what it holds. */
  #scan(): PackLists {
    const frames = new FrameTable();
    const numbers: number[] = [];
    let offset = PACK_HEADER_BYTES;
    for (;;) {
      const entry = this.#scanFrame(offset, frames.length, numbers);
      if (!entry) break;
      frames.push(entry);
      offset += frameBytes(entry);
    }
    const footer: PackFooter = {
      ...this.pack,
      frames: frames.length,
      chunks: numbers.length,
      trailerOffset: offset,
      placesChecksum: 0n,
      identitiesChecksum: 0n,
    };
    return { footer, isSealed: false, frames, numbers: Uint32Array.from(numbers) };
  }

  /** The frame at an offset, whose chunks' numbers are added to those before; null when there is none that is whole. */
  #scanFrame(offset: number, index: number, numbers: number[]): FrameEntry | null {
    if (offset + FRAME_HEADER_BYTES > this.sizeBytes) return null;
    const header = this.#read(offset, FRAME_HEADER_BYTES);
    const entry: FrameEntry = {
      offset,
      storedBytes: header.readUInt32LE(8),
      first: numbers.length,
      chunks: header.readUInt16LE(12),
      flags: header.readUInt16LE(14),
    };
    if (!isFrameSize(entry) || offset + frameBytes(entry) > this.sizeBytes) return null;
    const stored = this.#read(offset, frameBytes(entry));
    const own = Uint32Array.from({ length: entry.chunks }, (_, i) =>
      stored.readUInt16LE(FRAME_HEADER_BYTES + 2 * i),
    );
    try {
      checkFrame(this.ops, stored, entry, own, this.pack.number, index);
    } catch (error) {
      if (error instanceof FormatError) return null;
      throw error;
    }
    let previous = numbers.at(-1) ?? -1;
    for (const number of own) {
      if (number <= previous || number >= PACK_CHUNKS) return null;
      previous = number;
    }
    numbers.push(...own);
    return entry;
  }

  #decodePlaces(footer: PackFooter, places: Buffer): { frames: FrameTable; numbers: Uint32Array } {
    const { frames: frameCount, chunks, trailerOffset } = footer;
    const view = new DataView(places.buffer, places.byteOffset, places.byteLength);
    // A copy, which does not keep the numbers alive twice.
    const frames = new FrameTable(Buffer.from(places.subarray(0, frameCount * FRAME_ENTRY_BYTES)));
    let offset = PACK_HEADER_BYTES;
    let first = 0;
    let i = 0;
    for (const entry of frames) {
      if (entry.offset !== offset || entry.first !== first || !isFrameSize(entry))
        throw new DamageError(this.file, trailerOffset + i * FRAME_ENTRY_BYTES, 'a frame is listed wrongly');
      offset += frameBytes(entry);
      first += entry.chunks;
      i++;
    }
    if (offset !== trailerOffset || first !== chunks)
      throw new DamageError(this.file, trailerOffset, 'the frames do not fill the pack');
    const numbers = new Uint32Array(chunks);
    for (let i = 0, previous = -1; i < chunks; i++) {
      const number = view.getUint32(frameCount * FRAME_ENTRY_BYTES + i * 4, true);
      if (number <= previous || number >= PACK_CHUNKS)
        throw new DamageError(this.file, trailerOffset, 'the chunk numbers do not ascend');
      numbers[i] = previous = number;
    }
    return { frames, numbers };
  }

  #checked<T>(offset: number, decode: () => T): T {
    try {
      return decode();
    } catch (error) {
      if (error instanceof FormatError) throw new DamageError(this.file, offset, error.message);
      throw error;
    }
  }

  #read(offset: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    this.#bytes.readInto(bytes, offset, length);
    return bytes;
  }

  /** Position of a chunk by its number, or -1. */
  positionOf(number: number): number {
    const numbers = this.numbers;
    if (numbers[number] === number) return number; // a pack that was never rewritten
    let low = 0;
    let high = Math.min(numbers.length, number + 1);
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (numbers[middle]! < number) low = middle + 1;
      else high = middle;
    }
    return numbers[low] === number ? low : -1;
  }

  /** Reads frame `index` into `raw` (FRAME_BYTES), its checksum verified. */
  readFrame(index: number, raw: Uint8Array): void {
    const entry = this.frames.at(index);
    this.#bytes.readInto(frameScratch, entry.offset, frameBytes(entry));
    const numbers = this.numbers.subarray(entry.first, entry.first + entry.chunks);
    decodeFrame(this.ops, frameScratch, entry, numbers, this.pack.number, index, raw, this.file);
  }

  /** Fingerprints (8 bytes each) and SHA-256s (32 bytes each) by position, checksum verified. */
  readIdentities(): { fingerprints: Buffer; digests: Buffer } {
    if (!this.isSealed)
      throw new DamageError(this.file, this.footer.trailerOffset, 'the list of chunks cannot be read');
    const { frames, chunks, trailerOffset, identitiesChecksum } = this.footer;
    const offset = trailerOffset + frames * FRAME_ENTRY_BYTES + chunks * 4;
    const bytes = this.#read(offset, chunks * (8 + SHA256_BYTES));
    if (sum(this.ops, bytes) !== identitiesChecksum)
      throw new DamageError(this.file, offset, 'the list of chunks does not match its checksum');
    return { fingerprints: bytes.subarray(0, chunks * 8), digests: bytes.subarray(chunks * 8) };
  }

  #fingerprints: Uint32Array | null = null;

  /** Whether the chunk at a position is listed with this fingerprint, or as lost. Errors: DAMAGED. */
  isListedAs(position: number, low: number, high: number): boolean {
    this.#fingerprints ??= new Uint32Array(new Uint8Array(this.readIdentities().fingerprints).buffer);
    if (this.#fingerprints[2 * position] === low && this.#fingerprints[2 * position + 1] === high)
      return true;
    return (this.frames.at(this.frames.indexOf(position)).flags & FrameFlag.lost) !== 0;
  }

  close(): void {
    this.#bytes.close();
  }
}

/** Whether counts, flags and length of a frame fit each other. */
export function isFrameSize({ chunks, flags, storedBytes }: FrameEntry): boolean {
  if (chunks < 1 || chunks > FRAME_CHUNKS) return false;
  const rawBytes = chunks * PAGE_BYTES;
  if ((flags & FrameFlag.lost) !== 0) return storedBytes === 0 && (flags & FrameFlag.compressed) === 0;
  return (flags & FrameFlag.compressed) !== 0
    ? storedBytes >= 1 && storedBytes <= rawBytes
    : storedBytes === rawBytes;
}

/** One frame as stored; a thread reads one at a time. */
const frameScratch = Buffer.allocUnsafe(MAX_FRAME_BYTES);

/** The frames read last, unpacked. */
export class FrameCache {
  readonly #frames = new Map<number, Uint8Array>();

  constructor(readonly capacity: number) {}

  /** The frame under `key`, read by `fill` when it is not here; the bytes are valid until the next call. */
  get(key: number, fill: (raw: Uint8Array) => void): Uint8Array {
    let bytes = this.#frames.get(key);
    if (bytes) {
      if (key !== this.#newest) {
        this.#frames.delete(key); // a Map keeps the order of insertion: the first is the one used longest ago
        this.#frames.set(key, bytes);
        this.#newest = key;
      }
      return bytes;
    }
    if (this.#frames.size < this.capacity) bytes = new Uint8Array(FRAME_BYTES);
    else {
      const [oldest, recycled] = this.#frames.entries().next().value!;
      this.#frames.delete(oldest);
      bytes = recycled;
    }
    this.#newest = Number.NaN;
    fill(bytes);
    this.#frames.set(key, bytes);
    this.#newest = key;
    return bytes;
  }

  #newest = Number.NaN;
}

/**
 * The packs of a store by number, opened when first needed, and the frames read last.
 * `generationOf` gives a pack's generation, or undefined for a pack that the index does not know.
 */
export class PackSet {
  readonly #packs = new Map<number, PackReader | DamageError>();
  readonly #cache: FrameCache;

  constructor(
    readonly ops: PageOps,
    readonly dir: string,
    readonly generationOf: (number: number) => number | undefined,
    cachedFrames = 64,
  ) {
    this.#cache = new FrameCache(cachedFrames);
  }

  has(number: number): boolean {
    return this.#packs.get(number) instanceof PackReader || this.generationOf(number) !== undefined;
  }

  /** Errors: DAMAGED, the same one each time. */
  pack(number: number): PackReader {
    let reader = this.#packs.get(number);
    if (!reader) {
      try {
        reader = this.#openWithin(number);
      } catch (error) {
        if (!(error instanceof DamageError)) throw error;
        reader = error;
      }
      this.#closeOldest();
      this.#packs.set(number, reader);
    }
    if (reader instanceof DamageError) throw reader;
    return reader;
  }

  /** From now on the pack is read from this generation, if need be opened anew. */
  useGeneration(number: number, generation: number): void {
    const reader = this.#packs.get(number);
    if (!reader || (reader instanceof PackReader && reader.pack.generation === generation)) return;
    if (reader instanceof PackReader) reader.close();
    this.#packs.delete(number);
  }

  /** Where the process has no descriptor left, those of this set that can be opened again are given up for one. */
  #openWithin(number: number): PackReader {
    try {
      return this.openPack(number);
    } catch (error) {
      if (!isOutOfDescriptors(error) || this.#packs.size === 0) throw error;
      this.close();
      return this.openPack(number);
    }
  }

  #closeOldest(): void {
    if (this.#packs.size < MAX_OPEN_FILES) return;
    const [number, oldest] = this.#packs.entries().next().value!;
    if (oldest instanceof PackReader) oldest.close();
    this.#packs.delete(number);
  }

  /** A pack that gc rewrites meanwhile is found under its next generation, with every chunk that is needed. */
  protected openPack(number: number): PackReader {
    let generation = this.generationOf(number);
    if (generation === undefined)
      throw new DamageError(packFile(number, 0), null, 'the pack is missing from the index');
    for (;;) {
      try {
        return new PackReader(this.ops, this.dir, { number, generation });
      } catch (error) {
        if (!(error instanceof MissingFileError)) throw error;
        const lowest = lowestGeneration(this.dir, number);
        if (lowest === null || lowest <= generation) throw error;
        generation = lowest;
      }
    }
  }

  /** The page of chunk `number` of pack `pack`: `bytes` from `offset`, valid until the next call. */
  chunk(pack: number, number: number): { bytes: Uint8Array; offset: number } {
    const reader = this.pack(pack);
    const position = reader.positionOf(number);
    if (position < 0)
      throw new DamageError(reader.file, reader.footer.trailerOffset, `there is no chunk ${number}`);
    const index = reader.frames.indexOf(position);
    // By the opened file, not by the pack: the next generation has other frames.
    const bytes = this.#cache.get(reader.serial * 65536 + index, (raw) => reader.readFrame(index, raw));
    return { bytes, offset: (position - reader.frames.at(index).first) * PAGE_BYTES };
  }

  /** Where in its file the frame of a chunk begins. */
  offsetOf(pack: number, number: number): number {
    const reader = this.pack(pack);
    return reader.frames.at(reader.frames.indexOf(reader.positionOf(number))).offset;
  }

  close(): void {
    for (const reader of this.#packs.values()) if (reader instanceof PackReader) reader.close();
    this.#packs.clear();
  }
}
