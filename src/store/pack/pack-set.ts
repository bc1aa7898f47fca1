/**
 * The packs of a store, opened when they are first needed, with the frames that were read last.
 *
 * Thread: each has its own set. All calls are synchronous.
 */
import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError } from '../disk/damage.js';
import { isOutOfDescriptors, MAX_OPEN_FILES } from '../disk/descriptors.js';
import { lowestGeneration, packFile } from '../disk/layout.js';
import { MissingFileError } from '../disk/store-file.js';
import { FRAME_BYTES, PACK_CHUNKS } from './pack-format.js';
import { PackReader } from './pack-reader.js';

/** The most recently used frames, decompressed. */
export class FrameCache {
  /** A Map keeps the order of insertion, so the first frame is the least recently used one. */
  readonly #frames = new Map<number, Uint8Array>();
  #newest = Number.NaN;

  constructor(readonly capacity: number) {}

  /** The frame under `key`; `fill` reads it when it is not cached. The bytes are valid until the next call. */
  get(key: number, fill: (raw: Uint8Array) => void): Uint8Array {
    let bytes = this.#frames.get(key);
    if (bytes) {
      if (key !== this.#newest) {
        this.#frames.delete(key);
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
    this.#newest = Number.NaN; // in case `fill` throws
    fill(bytes);
    this.#frames.set(key, bytes);
    this.#newest = key;
    return bytes;
  }
}

export class PackSet {
  /** A pack that could not be opened is kept as its damage. */
  readonly #packs = new Map<number, PackReader | DamageError>();
  readonly #cache: FrameCache;

  /** `generationOf`: a pack's generation; undefined for a pack that the index does not list. */
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

  /** Errors: DAMAGED, the same error on every call; NEWER_FORMAT. */
  pack(number: number): PackReader {
    let reader = this.#packs.get(number);
    if (!reader) {
      try {
        reader = this.#openWithinLimit(number);
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

  /** From now on, reads the pack from this generation. */
  useGeneration(number: number, generation: number): void {
    const reader = this.#packs.get(number);
    if (!reader || (reader instanceof PackReader && reader.pack.generation === generation)) return;
    if (reader instanceof PackReader) reader.close();
    this.#packs.delete(number);
  }

  /** When the process has no descriptor left, closes all packs of this set, which can be opened again, and retries. */
  #openWithinLimit(number: number): PackReader {
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

  /** If gc rewrites the pack meanwhile, opens its next generation, which has every chunk that is needed. */
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

  /** The page of a chunk: `bytes` from `offset`, valid until the next call. Errors: DAMAGED, NEWER_FORMAT. */
  chunk(pack: number, number: number): { bytes: Uint8Array; offset: number } {
    const reader = this.pack(pack);
    const position = reader.positionOf(number);
    if (position < 0)
      throw new DamageError(reader.file, reader.footer.trailerOffset, `there is no chunk ${number}`);
    const index = reader.frames.indexOf(position);
    // Keyed by the open file and not by the pack: another generation has other frames.
    const key = reader.serial * PACK_CHUNKS + index;
    const bytes = this.#cache.get(key, (raw) => reader.readFrame(index, raw));
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
