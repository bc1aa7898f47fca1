/**
 * Writes one pack: frames as they fill, then the trailer that seals it (docs/format.md, "Packs"). Runs in a page
 * Worker, synchronously.
 *
 * Invariants: append-only; a pack counts only once `seal` has returned, its data fsynced; after any failure the pack
 * is abandoned, never fsynced again. A chunk's number never changes, in this generation or a later one. The file is
 * locked from the moment it is made until `close`, so that gc does not take it for one that a crash left.
 */

import { hash } from 'node:crypto';
import { closeSync, fsyncSync, readSync, writeSync } from 'node:fs';
import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError } from '../disk/damage.js';
import { createLocked } from '../disk/file-locks.js';
import { at, packFile, removeIfThere } from '../disk/layout.js';
import {
  CHUNK_ENTRY_BYTES,
  decodeFrame,
  encodeFooter,
  encodeFrameHead,
  encodePackHeader,
  FRAME_BYTES,
  FRAME_CHUNKS,
  type FrameEntry,
  FrameFlag,
  FrameTable,
  frameBytes,
  MAX_FRAME_BYTES,
  PACK_CHUNKS,
  PACK_HEADER_BYTES,
  payloadOffset,
  SHA256_BYTES,
  sum,
} from './pack-format.js';

/** Writes are gathered up to this, and each is one system call. */
const GATHER_BYTES = 1 << 20;
/** A frame is kept compressed only when that saves a sixteenth: reading raw bytes back is faster. */
const compressedLimit = (rawBytes: number): number => rawBytes - (rawBytes >> 4);

export interface SealedPack {
  readonly number: number;
  readonly generation: number;
  readonly chunks: number;
  readonly sizeBytes: number;
}

export class PackWriter {
  /** Relative to the store. */
  readonly file: string;
  readonly #fd: number;
  #open: boolean;
  #sizeBytes = 0;

  readonly #frames = new FrameTable();
  #chunks = 0;
  #nextNumber = 0;
  readonly #numbers = new Uint32Array(PACK_CHUNKS);
  readonly #fingerprints = new Uint8Array(PACK_CHUNKS * 8);
  readonly #digests = Buffer.alloc(PACK_CHUNKS * SHA256_BYTES);

  /** Chunks that wait for their frame to fill, uncompressed. */
  readonly #pending = new Uint8Array(FRAME_BYTES);
  #pendingChunks = 0;
  #pendingFlags = 0;

  readonly #gathered = Buffer.allocUnsafe(GATHER_BYTES + MAX_FRAME_BYTES);
  #gatheredBytes = 0;

  /** `dryRun`: nothing is written; only `sizeBytes` is found out. */
  constructor(
    readonly ops: PageOps,
    readonly dir: string,
    readonly number: number,
    readonly generation: number,
    readonly dryRun = false,
  ) {
    this.file = packFile(number, generation);
    this.#open = !dryRun;
    this.#fd = dryRun ? -1 : createLocked(at(dir, this.file));
    this.#gathered.set(encodePackHeader(ops, this));
    this.#gatheredBytes = PACK_HEADER_BYTES;
  }

  /** Chunks so far. */
  get chunks(): number {
    return this.#chunks;
  }

  get full(): boolean {
    return this.#chunks === PACK_CHUNKS;
  }

  get sizeBytes(): number {
    return this.#sizeBytes + this.#gatheredBytes;
  }

  /** Appends a chunk under the next free number, which is returned. */
  append(source: Uint8Array, offset: number, fingerprint: Uint8Array, manifest: boolean): number {
    const number = this.#nextNumber;
    this.appendNumbered(source, offset, fingerprint, manifest, number);
    return number;
  }

  /**
   * Appends a chunk under a number it had in an earlier generation; numbers ascend. `digest`: its SHA-256, when an
   * earlier generation lists it.
   */
  appendNumbered(
    source: Uint8Array,
    offset: number,
    fingerprint: Uint8Array,
    manifest: boolean,
    number: number,
    digest?: Uint8Array,
  ): void {
    this.#beginChunk(manifest ? FrameFlag.manifest : 0, number, fingerprint);
    const pendingAt = this.#pendingChunks * PAGE_BYTES;
    const page = this.#pending.subarray(pendingAt, pendingAt + PAGE_BYTES);
    page.set(source.subarray(offset, offset + PAGE_BYTES));
    // As a string of bytes: a Buffer for each page would cost half as much again as the hash.
    if (digest) this.#digests.set(digest, this.#chunks * SHA256_BYTES);
    else this.#digests.write(hash('sha256', page, 'binary'), this.#chunks * SHA256_BYTES, 'latin1');
    this.#endChunk(number);
  }

  /** Appends a chunk of which only the identity is left. */
  appendLost(number: number, fingerprint: Uint8Array, digest: Uint8Array, manifest: boolean): void {
    this.#beginChunk(FrameFlag.lost | (manifest ? FrameFlag.manifest : 0), number, fingerprint);
    this.#digests.set(digest, this.#chunks * SHA256_BYTES);
    this.#endChunk(number);
  }

  #beginChunk(flags: number, number: number, fingerprint: Uint8Array): void {
    if (this.#pendingChunks > 0 && flags !== this.#pendingFlags) this.#flushFrame();
    this.#pendingFlags = flags;
    this.#numbers[this.#chunks] = number;
    this.#fingerprints.set(fingerprint, this.#chunks * 8);
  }

  #endChunk(number: number): void {
    this.#nextNumber = number + 1;
    this.#chunks++;
    if (++this.#pendingChunks === FRAME_CHUNKS) this.#flushFrame();
  }

  /** The chunk at a position that waits for its frame to fill; null when it is in a frame already. */
  pendingChunk(position: number): { bytes: Uint8Array; offset: number } | null {
    const first = this.#chunks - this.#pendingChunks;
    return position >= first && position < this.#chunks
      ? { bytes: this.#pending, offset: (position - first) * PAGE_BYTES }
      : null;
  }

  get frames(): FrameTable {
    return this.#frames;
  }

  /** Reads a frame of this pack back, before or after it has reached the file. */
  readFrame(index: number, raw: Uint8Array): void {
    const entry = this.#frames.at(index);
    const length = frameBytes(entry);
    let stored: Uint8Array;
    if (entry.offset >= this.#sizeBytes) {
      const at = entry.offset - this.#sizeBytes;
      stored = this.#gathered.subarray(at, at + length);
    } else {
      stored = Buffer.allocUnsafe(length);
      if (readSync(this.#fd, stored, 0, length, entry.offset) !== length)
        throw new DamageError(this.file, entry.offset, 'a frame just written cannot be read back');
    }
    const numbers = this.#numbers.subarray(entry.first, entry.first + entry.chunks);
    decodeFrame(this.ops, stored, entry, numbers, this.number, index, raw, this.file);
  }

  #flushFrame(): void {
    const start = this.#gatheredBytes;
    const payload = start + payloadOffset(this.#pendingChunks);
    const [flags, storedBytes] = this.#compressPending(payload);
    const first = this.#chunks - this.#pendingChunks;
    const entry: FrameEntry = {
      offset: this.#sizeBytes + start,
      storedBytes,
      first,
      chunks: this.#pendingChunks,
      flags,
    };
    encodeFrameHead(
      this.ops,
      this.#gathered.subarray(start, payload + storedBytes),
      entry,
      this.#numbers.subarray(first, this.#chunks),
      this.number,
      this.#frames.length,
    );
    this.#frames.push(entry);
    this.#pendingChunks = 0;
    this.#gatheredBytes = payload + storedBytes;
    if (this.#gatheredBytes >= GATHER_BYTES) this.#writeGathered();
  }

  /** Puts the payload of the pending frame where it belongs; gives its flags and length. */
  #compressPending(payload: number): [flags: number, storedBytes: number] {
    const flags = this.#pendingFlags;
    if ((flags & FrameFlag.lost) !== 0) return [flags, 0];
    const rawBytes = this.#pendingChunks * PAGE_BYTES;
    const limit = compressedLimit(rawBytes);
    const storedBytes = this.ops.compress(this.#pending, rawBytes, this.#gathered, payload, limit);
    if (storedBytes > 0) return [flags | FrameFlag.compressed, storedBytes];
    this.#gathered.set(this.#pending.subarray(0, rawBytes), payload);
    return [flags, rawBytes];
  }

  #writeGathered(): void {
    this.#write(this.#gathered.subarray(0, this.#gatheredBytes));
    this.#gatheredBytes = 0;
  }

  #write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length && !this.dryRun; ) {
      done += writeSync(this.#fd, bytes, done, bytes.length - done, this.#sizeBytes + done);
    }
    this.#sizeBytes += bytes.length;
  }

  /** Writes the trailer and fsyncs. The file stays open, and so locked, until `close`. */
  seal(): SealedPack {
    if (this.#pendingChunks > 0) this.#flushFrame();
    this.#writeGathered();
    const chunks = this.#chunks;
    const table = this.#frames.bytes;
    const places = Buffer.alloc(table.length + chunks * 4);
    places.set(table);
    for (let i = 0; i < chunks; i++) places.writeUInt32LE(this.#numbers[i]!, table.length + i * 4);
    const identities = Buffer.allocUnsafe(chunks * (CHUNK_ENTRY_BYTES - 4));
    identities.set(this.#fingerprints.subarray(0, chunks * 8));
    identities.set(this.#digests.subarray(0, chunks * SHA256_BYTES), chunks * 8);
    const footer = encodeFooter(this.ops, {
      number: this.number,
      generation: this.generation,
      frames: this.#frames.length,
      chunks,
      trailerOffset: this.#sizeBytes,
      placesChecksum: sum(this.ops, places),
      identitiesChecksum: sum(this.ops, identities),
    });
    this.#write(places);
    this.#write(identities);
    this.#write(footer);
    if (!this.dryRun) fsyncSync(this.#fd);
    return {
      number: this.number,
      generation: this.generation,
      chunks,
      sizeBytes: this.#sizeBytes,
    };
  }

  /** Gives the descriptor of a sealed pack, and with it the lock of its file, to the caller. */
  takeDescriptor(): number {
    this.#open = false;
    return this.#fd;
  }

  close(): void {
    if (this.#open) closeSync(this.#fd);
    this.#open = false;
  }

  /** Gives the pack up: the file goes. */
  abandon(): void {
    try {
      if (!this.dryRun) removeIfThere(at(this.dir, this.file));
    } finally {
      this.close();
    }
  }
}
