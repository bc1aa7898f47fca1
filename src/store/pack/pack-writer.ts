/**
 * Writes one pack: frames as they fill, then the trailer that seals it (docs/format.md, "Packs").
 *
 * Thread: the one that runs page jobs. All calls are synchronous. Native threads encode frames meanwhile (frame-encoder.ts).
 *
 * Invariants:
 * - The file is only appended to. It is a pack once `seal` has returned, which fsyncs it.
 * - After a failure the caller abandons the pack; its file is never fsynced again.
 * - Frames are written in the order in which their chunks were appended.
 * - Chunk numbers ascend. A chunk's number never changes, in this generation or a later one.
 * - The file is locked from its creation until `close`, so gc does not delete it as the rest of a crash.
 */
import assert from 'node:assert/strict';

import { closeSync, fsyncSync, readSync, writeSync } from 'node:fs';
import { startWriteback } from '../../native/files.js';
import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError } from '../disk/damage.js';
import { createLocked } from '../disk/file-locks.js';
import { at, packFile, removeIfThere } from '../disk/layout.js';
import { DEFAULT_DIGEST, DIGEST_BYTES } from './digest.js';
import { acquireFrameSlots, compression, type FrameSlot, releaseFrameSlots } from './frame-encoder.js';
import { FrameTable } from './frame-table.js';
import { xxh64 } from './hashes.js';
import {
  decodeFrame,
  Effort,
  encodeFooter,
  encodePackHeader,
  FINGERPRINT_BYTES,
  FRAME_CHUNKS,
  type FrameEntry,
  FrameFlag,
  frameBytes,
  identitiesBytes,
  isValidFrame,
  MAX_FRAME_BYTES,
  PACK_CHUNKS,
  PACK_HEADER_BYTES,
} from './pack-format.js';

/** Frames are written once this much has been gathered, with one system call. */
const GATHER_BYTES = 1 << 20;
/** The kernel is told to write to the disk whenever this much has been written, so that `seal` waits for little. */
const WRITEBACK_BYTES = 8 << 20;
/** Of a frame whose chunks are lost. */
const NO_PAYLOAD = { lz4Flag: 0, maxCompressed: 0, effort: Effort.fast };

/** A frame whose chunks are gathered, or that is being encoded. */
interface FrameInFlight {
  readonly slot: FrameSlot;
  /** Position of its first chunk in the pack. */
  readonly first: number;
  chunks: number;
  /** Without those of the codec. */
  readonly flags: number;
  /** Bit i: the digest of chunk i is not given. */
  hashed: number;
}

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
  readonly #digests = Buffer.alloc(PACK_CHUNKS * DIGEST_BYTES);

  readonly #slots: FrameSlot[];
  readonly #freeSlots: FrameSlot[];
  /** The frame that is not full yet. */
  #pending: FrameInFlight | null = null;
  /** Frames that were submitted, in their order in the file. */
  readonly #submitted: FrameInFlight[] = [];
  #framesSubmitted = 0;

  readonly #gathered = Buffer.allocUnsafe(GATHER_BYTES + MAX_FRAME_BYTES);
  #gatheredBytes = 0;
  /** The kernel was told to write what comes before. */
  #writebackFrom = 0;

  readonly #effort: Effort;
  /** The ID of the digests. */
  readonly #digest: number;
  /** Writes nothing and creates no file, only computes the size. */
  readonly #dryRun: boolean;

  constructor(
    readonly ops: PageOps,
    readonly dir: string,
    readonly number: number,
    readonly generation: number,
    {
      effort = Effort.fast,
      digest = DEFAULT_DIGEST,
      dryRun = false,
    }: { effort?: Effort; digest?: number; dryRun?: boolean } = {},
  ) {
    assert(effort === Effort.fast || ops.hasHigh, 'LZ4-HC is there');
    this.#effort = effort;
    this.#digest = digest;
    this.#dryRun = dryRun;
    this.file = packFile(number, generation);
    this.#open = !dryRun;
    this.#fd = dryRun ? -1 : createLocked(at(dir, this.file));
    this.#slots = acquireFrameSlots(ops);
    this.#freeSlots = [...this.#slots];
    this.#gathered.set(encodePackHeader(ops, this, digest));
    this.#gatheredBytes = PACK_HEADER_BYTES;
  }

  /** Chunks appended so far. */
  get chunks(): number {
    return this.#chunks;
  }

  get full(): boolean {
    return this.#chunks === PACK_CHUNKS;
  }

  /** Appends a chunk under the next free number and returns the number. */
  append(source: Uint8Array, offset: number, fingerprint: Uint8Array, manifest: boolean): number {
    const number = this.#nextNumber;
    this.appendNumbered(source, offset, fingerprint, manifest, number);
    return number;
  }

  /**
   * Appends a chunk under the number that it had in an earlier generation. `digest`: its digest under the ID of
   * this pack, where an earlier generation lists it.
   */
  appendNumbered(
    source: Uint8Array,
    offset: number,
    fingerprint: Uint8Array,
    manifest: boolean,
    number: number,
    digest?: Uint8Array,
  ): void {
    const frame = this.#beginChunk(manifest ? FrameFlag.manifest : 0, number, fingerprint);
    const i = frame.chunks;
    frame.slot.raw.set(source.subarray(offset, offset + PAGE_BYTES), i * PAGE_BYTES);
    if (digest) frame.slot.digests.set(digest, i * DIGEST_BYTES);
    else frame.hashed |= 1 << i;
    this.#endChunk(frame, number);
  }

  /** Appends a chunk whose bytes are lost; only its identity is kept. */
  appendLost(number: number, fingerprint: Uint8Array, digest: Uint8Array, manifest: boolean): void {
    const frame = this.#beginChunk(FrameFlag.lost | (manifest ? FrameFlag.manifest : 0), number, fingerprint);
    frame.slot.digests.set(digest, frame.chunks * DIGEST_BYTES);
    this.#endChunk(frame, number);
  }

  #beginChunk(flags: number, number: number, fingerprint: Uint8Array): FrameInFlight {
    assert(number >= this.#nextNumber && number < PACK_CHUNKS, 'chunk numbers ascend');
    if (this.#pending && flags !== this.#pending.flags) this.#submitFrame(this.#pending);
    this.#pending ??= { slot: this.#freeSlot(), first: this.#chunks, chunks: 0, flags, hashed: 0 };
    this.#numbers[this.#chunks] = number;
    this.#fingerprints.set(fingerprint, this.#chunks * FINGERPRINT_BYTES);
    return this.#pending;
  }

  #endChunk(frame: FrameInFlight, number: number): void {
    this.#nextNumber = number + 1;
    this.#chunks++;
    if (++frame.chunks === FRAME_CHUNKS) this.#submitFrame(frame);
  }

  #freeSlot(): FrameSlot {
    if (this.#freeSlots.length === 0) this.#takeSubmitted({ atMost: 1 });
    return this.#freeSlots.pop()!;
  }

  /** The chunk at a position that was appended, if its frame is not among `frames` yet; null if it is. */
  pendingChunk(position: number): { bytes: Uint8Array; offset: number } | null {
    const oldest = this.#submitted[0] ?? this.#pending;
    if (!oldest || position < oldest.first) return null;
    let frame = this.#pending;
    for (let i = this.#submitted.length - 1; !frame || position < frame.first; i--)
      frame = this.#submitted[i]!;
    return { bytes: frame.slot.raw, offset: (position - frame.first) * PAGE_BYTES };
  }

  /** The frames that are encoded, and written or gathered. */
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

  #submitFrame(frame: FrameInFlight): void {
    const { slot, first, chunks, flags, hashed } = frame;
    slot.submit({
      flags,
      digest: this.#digest,
      ...((flags & FrameFlag.lost) === 0 ? compression(chunks, this.#effort) : NO_PAYLOAD),
      numbers: this.#numbers.subarray(first, first + chunks),
      hashed,
      pack: this.number,
      index: this.#framesSubmitted++,
    });
    this.#pending = null;
    this.#submitted.push(frame);
    while (this.#submitted[0]?.slot.isEncoded) this.#takeFrame(this.#submitted.shift()!);
  }

  /** Waits for submitted frames, all or the first `atMost`, and gathers them. */
  #takeSubmitted({ atMost = Number.POSITIVE_INFINITY } = {}): void {
    for (let i = 0; i < atMost && this.#submitted.length > 0; i++) this.#takeFrame(this.#submitted.shift()!);
  }

  #takeFrame({ slot, first, chunks }: FrameInFlight): void {
    const { flags, storedBytes } = slot.wait();
    const entry: FrameEntry = {
      offset: this.#sizeBytes + this.#gatheredBytes,
      storedBytes,
      first,
      chunks,
      flags,
    };
    assert(isValidFrame(entry), 'a frame has its layout');
    this.#gathered.set(slot.frame(frameBytes(entry)), this.#gatheredBytes);
    this.#digests.set(slot.digests.subarray(0, chunks * DIGEST_BYTES), first * DIGEST_BYTES);
    this.#gatheredBytes += frameBytes(entry);
    this.#frames.push(entry);
    this.#freeSlots.push(slot);
    if (this.#gatheredBytes >= GATHER_BYTES) this.#writeGathered();
  }

  #writeGathered(): void {
    this.#write(this.#gathered.subarray(0, this.#gatheredBytes));
    this.#gatheredBytes = 0;
    if (this.#sizeBytes - this.#writebackFrom >= WRITEBACK_BYTES) this.#startWriteback();
  }

  #startWriteback(): void {
    const from = this.#writebackFrom;
    this.#writebackFrom = this.#sizeBytes;
    if (!this.#dryRun) startWriteback(this.#fd, from, this.#sizeBytes - from);
  }

  #write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length && !this.#dryRun; ) {
      done += writeSync(this.#fd, bytes, done, bytes.length - done, this.#sizeBytes + done);
    }
    this.#sizeBytes += bytes.length;
  }

  /** Writes the trailer, and fsyncs the file unless the caller does that. It stays open and locked until `close`. */
  seal({ sync = true } = {}): SealedPack {
    if (this.#pending) this.#submitFrame(this.#pending);
    this.#takeSubmitted();
    this.#writeGathered();
    releaseFrameSlots(this.#slots);
    const chunks = this.#chunks;
    const table = this.#frames.bytes;
    const tables = Buffer.alloc(table.length + chunks * 4);
    tables.set(table);
    for (let i = 0; i < chunks; i++) tables.writeUInt32LE(this.#numbers[i]!, table.length + i * 4);
    const identities = Buffer.allocUnsafe(identitiesBytes(chunks));
    identities.set(this.#fingerprints.subarray(0, chunks * FINGERPRINT_BYTES));
    identities.set(this.#digests.subarray(0, chunks * DIGEST_BYTES), chunks * FINGERPRINT_BYTES);
    const footer = encodeFooter(this.ops, {
      number: this.number,
      generation: this.generation,
      frames: this.#frames.length,
      chunks,
      effort: this.#effort,
      digest: this.#digest,
      trailerOffset: this.#sizeBytes,
      tablesChecksum: xxh64(this.ops, tables),
      identitiesChecksum: xxh64(this.ops, identities),
    });
    this.#write(tables);
    this.#write(identities);
    this.#write(footer);
    if (sync && !this.#dryRun) fsyncSync(this.#fd);
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
      if (!this.#dryRun) removeIfThere(at(this.dir, this.file));
    } finally {
      this.close();
    }
  }
}
