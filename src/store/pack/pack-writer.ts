/**
 * Writes one pack: frames as they fill, then the trailer that seals it (docs/format.md, "Packs").
 *
 * Thread: a page Worker. All calls are synchronous.
 *
 * Invariants:
 * - The file is only appended to. It is a pack once `seal` has returned, which fsyncs it.
 * - After a failure the caller abandons the pack; its file is never fsynced again.
 * - Chunk numbers ascend. A chunk's number never changes, in this generation or a later one.
 * - The file is locked from its creation until `close`, so gc does not delete it as the rest of a crash.
 */
import assert from 'node:assert/strict';

import { hash } from 'node:crypto';
import { closeSync, fsyncSync, readSync, writeSync } from 'node:fs';
import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError } from '../disk/damage.js';
import { createLocked } from '../disk/file-locks.js';
import { at, packFile, removeIfThere } from '../disk/layout.js';
import { CODECS, DEFAULT_CODEC, RAW } from './codec.js';
import { FrameTable } from './frame-table.js';
import { xxh64 } from './hashes.js';
import {
  codecFlags,
  decodeFrame,
  encodeFooter,
  encodeFrameHead,
  encodePackHeader,
  FINGERPRINT_BYTES,
  FRAME_BYTES,
  FRAME_CHUNKS,
  type FrameEntry,
  FrameFlag,
  frameBytes,
  identitiesBytes,
  isValidFrame,
  MAX_FRAME_BYTES,
  PACK_CHUNKS,
  PACK_HEADER_BYTES,
  payloadOffset,
  SHA256_BYTES,
} from './pack-format.js';

/** Frames are written once this much has been gathered, with one system call. */
const GATHER_BYTES = 1 << 20;
/** A frame is stored compressed only if that saves a sixteenth, because raw frames are faster to read. */
const maxCompressedBytes = (rawBytes: number): number => rawBytes - (rawBytes >> 4);

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
  readonly #fingerprints = new Uint8Array(PACK_CHUNKS * FINGERPRINT_BYTES);
  readonly #digests = Buffer.alloc(PACK_CHUNKS * SHA256_BYTES);

  /** The chunks of the frame that is not full yet, uncompressed. */
  readonly #pending = new Uint8Array(FRAME_BYTES);
  #pendingChunks = 0;
  #pendingFlags = 0;

  readonly #gathered = Buffer.allocUnsafe(GATHER_BYTES + MAX_FRAME_BYTES);
  #gatheredBytes = 0;

  /** `dryRun`: writes nothing and creates no file, only computes `sizeBytes`. */
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

  /** Chunks appended so far. */
  get chunks(): number {
    return this.#chunks;
  }

  get full(): boolean {
    return this.#chunks === PACK_CHUNKS;
  }

  get sizeBytes(): number {
    return this.#sizeBytes + this.#gatheredBytes;
  }

  /** Appends a chunk under the next free number and returns the number. */
  append(source: Uint8Array, offset: number, fingerprint: Uint8Array, manifest: boolean): number {
    const number = this.#nextNumber;
    this.appendNumbered(source, offset, fingerprint, manifest, number);
    return number;
  }

  /**
   * Appends a chunk under the number that it had in an earlier generation. `digest`: its SHA-256, where an earlier
   * generation lists it.
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
    // As a string, because a Buffer for each page takes half as long as the hash itself.
    if (digest) this.#digests.set(digest, this.#chunks * SHA256_BYTES);
    else this.#digests.write(hash('sha256', page, 'binary'), this.#chunks * SHA256_BYTES, 'latin1');
    this.#endChunk(number);
  }

  /** Appends a chunk whose bytes are lost; only its identity is kept. */
  appendLost(number: number, fingerprint: Uint8Array, digest: Uint8Array, manifest: boolean): void {
    this.#beginChunk(FrameFlag.lost | (manifest ? FrameFlag.manifest : 0), number, fingerprint);
    this.#digests.set(digest, this.#chunks * SHA256_BYTES);
    this.#endChunk(number);
  }

  #beginChunk(flags: number, number: number, fingerprint: Uint8Array): void {
    assert(number >= this.#nextNumber && number < PACK_CHUNKS, 'chunk numbers ascend');
    if (this.#pendingChunks > 0 && flags !== this.#pendingFlags) this.#flushFrame();
    this.#pendingFlags = flags;
    this.#numbers[this.#chunks] = number;
    this.#fingerprints.set(fingerprint, this.#chunks * FINGERPRINT_BYTES);
  }

  #endChunk(number: number): void {
    this.#nextNumber = number + 1;
    this.#chunks++;
    if (++this.#pendingChunks === FRAME_CHUNKS) this.#flushFrame();
  }

  /** The chunk at a position, if its frame is not full yet; null if it is in a frame already. */
  pendingChunk(position: number): { bytes: Uint8Array; offset: number } | null {
    const first = this.#chunks - this.#pendingChunks;
    return position >= first && position < this.#chunks
      ? { bytes: this.#pending, offset: (position - first) * PAGE_BYTES }
      : null;
  }

  get frames(): FrameTable {
    return this.#frames;
  }

  /** Reads a frame back, from memory or from the file. */
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
        throw new DamageError(this.file, entry.offset, 'the file is shorter than what was written to it');
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
    assert(isValidFrame(entry), 'a frame has its layout');
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

  /** Writes the payload of the pending frame to `offset` of the gathered bytes; returns the flags and the length. */
  #compressPending(offset: number): [flags: number, storedBytes: number] {
    const flags = this.#pendingFlags;
    if ((flags & FrameFlag.lost) !== 0) return [flags, 0];
    const rawBytes = this.#pendingChunks * PAGE_BYTES;
    const compress = (codec: number, maxBytes: number): number =>
      CODECS[codec]!.compress(this.ops, this.#pending, rawBytes, this.#gathered, offset, maxBytes);
    const storedBytes = compress(DEFAULT_CODEC, maxCompressedBytes(rawBytes));
    if (storedBytes > 0) return [flags | codecFlags(DEFAULT_CODEC), storedBytes];
    return [flags | codecFlags(RAW), compress(RAW, rawBytes)];
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

  /** Writes the trailer and fsyncs the file, which stays open and locked until `close`. */
  seal(): SealedPack {
    if (this.#pendingChunks > 0) this.#flushFrame();
    this.#writeGathered();
    const chunks = this.#chunks;
    const table = this.#frames.bytes;
    const tables = Buffer.alloc(table.length + chunks * 4);
    tables.set(table);
    for (let i = 0; i < chunks; i++) tables.writeUInt32LE(this.#numbers[i]!, table.length + i * 4);
    const identities = Buffer.allocUnsafe(identitiesBytes(chunks));
    identities.set(this.#fingerprints.subarray(0, chunks * FINGERPRINT_BYTES));
    identities.set(this.#digests.subarray(0, chunks * SHA256_BYTES), chunks * FINGERPRINT_BYTES);
    const footer = encodeFooter(this.ops, {
      number: this.number,
      generation: this.generation,
      frames: this.#frames.length,
      chunks,
      trailerOffset: this.#sizeBytes,
      tablesChecksum: xxh64(this.ops, tables),
      identitiesChecksum: xxh64(this.ops, identities),
    });
    this.#write(tables);
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

  /** Hands the descriptor of a sealed pack, which holds the lock of the file, to the caller, who closes it. */
  takeDescriptor(): number {
    this.#open = false;
    return this.#fd;
  }

  close(): void {
    if (this.#open) closeSync(this.#fd);
    this.#open = false;
  }

  /** Deletes the file. */
  abandon(): void {
    try {
      if (!this.dryRun) removeIfThere(at(this.dir, this.file));
    } finally {
      this.close();
    }
  }
}
