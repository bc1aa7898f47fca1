/**
 * Reads one sealed pack (docs/format.md, "Packs").
 *
 * Thread: any. Page Workers read pages; the main thread reads manifests. All calls are synchronous.
 *
 * Invariants:
 * - Bytes are verified by their checksum, and numbers are checked against their bounds, before they are used.
 * - Damage is a DamageError with the file and the offset.
 * - The file stays open until `close`, so a pack that gc deletes meanwhile can still be read.
 */
import type { PageOps } from '../../native/pages.js';
import { DamageError } from '../disk/damage.js';
import { packFile } from '../disk/layout.js';
import { StoreFile } from '../disk/store-file.js';
import type { FrameTable } from './frame-table.js';
import { xxh64 } from './hashes.js';
import {
  decodeFrame,
  FINGERPRINT_BYTES,
  FrameFlag,
  frameBytes,
  identitiesBytes,
  MAX_FRAME_BYTES,
  type PackFooter,
  type PackName,
  tablesBytes,
} from './pack-format.js';
import {
  type PackBytes,
  type PackLists,
  readBytes,
  readLists,
  requirePackHeader,
  requirePackSize,
} from './pack-lists.js';

let lastSerial = 0;

/** One frame as stored; a thread reads one at a time. */
const frameScratch = Buffer.allocUnsafe(MAX_FRAME_BYTES);

export class PackReader {
  /** Relative to the store. */
  readonly file: string;
  readonly sizeBytes: number;
  readonly footer: PackFooter;
  readonly frames: FrameTable;
  /** Chunk numbers by position, ascending. */
  readonly numbers: Uint32Array;
  /** False: the lists were made from the frames (see pack-scan.ts). */
  readonly isSealed: boolean;
  /** A number that no other reader of this thread has. */
  readonly serial = ++lastSerial;
  readonly #bytes: PackBytes;
  /** As pairs of words; read when they are first needed. */
  #fingerprints: Uint32Array | null = null;

  /**
   * `bytes`: read instead of the file in the store, and closed with the reader. `lists`: used instead of those in the
   * pack, whose header is then not checked either. Errors: DAMAGED, NEWER_FORMAT.
   */
  constructor(
    readonly ops: PageOps,
    dir: string,
    readonly pack: PackName,
    { bytes, lists }: { bytes?: PackBytes; lists?: PackLists } = {},
  ) {
    this.file = packFile(pack.number, pack.generation);
    this.#bytes = bytes ?? new StoreFile(dir, this.file);
    this.sizeBytes = this.#bytes.sizeBytes;
    try {
      requirePackSize(this.#bytes, this.file);
      if (!lists) {
        requirePackHeader(ops, this.#bytes, pack);
        lists = readLists(ops, this.#bytes, pack);
      }
      ({ footer: this.footer, frames: this.frames, numbers: this.numbers, isSealed: this.isSealed } = lists);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Position of a chunk by its number, or -1. */
  positionOf(number: number): number {
    const numbers = this.numbers;
    if (numbers[number] === number) return number; // generation 0
    let low = 0;
    let high = Math.min(numbers.length, number + 1);
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (numbers[middle]! < number) low = middle + 1;
      else high = middle;
    }
    return numbers[low] === number ? low : -1;
  }

  /** Reads and verifies frame `index` and decompresses it into `raw` (FRAME_BYTES). Errors: DAMAGED, NEWER_FORMAT. */
  readFrame(index: number, raw: Uint8Array): void {
    const entry = this.frames.at(index);
    this.#bytes.readInto(frameScratch, entry.offset, frameBytes(entry));
    const numbers = this.numbers.subarray(entry.first, entry.first + entry.chunks);
    decodeFrame(this.ops, frameScratch, entry, numbers, this.pack.number, index, raw, this.file);
  }

  /** Reads and verifies the fingerprints (8 bytes each) and digests (32 bytes each), by position. Errors: DAMAGED. */
  readIdentities(): { fingerprints: Buffer; digests: Buffer } {
    const { chunks, trailerOffset, identitiesChecksum } = this.footer;
    if (!this.isSealed)
      throw new DamageError(this.file, trailerOffset, 'the list of fingerprints cannot be read');
    const offset = trailerOffset + tablesBytes(this.footer);
    const bytes = readBytes(this.#bytes, offset, identitiesBytes(chunks));
    if (xxh64(this.ops, bytes) !== identitiesChecksum)
      throw new DamageError(this.file, offset, 'the list of fingerprints does not match its checksum');
    const split = chunks * FINGERPRINT_BYTES;
    return { fingerprints: bytes.subarray(0, split), digests: bytes.subarray(split) };
  }

  /** Whether repair has marked the chunk at a position as lost. */
  isLost(position: number): boolean {
    return (this.frames.at(this.frames.indexOf(position)).flags & FrameFlag.lost) !== 0;
  }

  /** Whether the chunk at a position is listed with this fingerprint, or is lost. Errors: DAMAGED. */
  isListedAs(position: number, low: number, high: number): boolean {
    this.#fingerprints ??= new Uint32Array(new Uint8Array(this.readIdentities().fingerprints).buffer);
    if (this.#fingerprints[2 * position] === low && this.#fingerprints[2 * position + 1] === high)
      return true;
    return this.isLost(position);
  }

  close(): void {
    this.#bytes.close();
  }
}
