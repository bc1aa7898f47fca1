/**
 * The page path of one save, in a page Worker: fingerprint, find, prove, or else append to a pack.
 *
 * Invariants: zero pages go no further than the scan; a page becomes a reference only after its bytes were found
 * equal to a chunk that was read with its checksum (a chunk that cannot be read is no hit), in a pack that gc cannot
 * take away: one of the parent, which is pinned, one that is held, or one of this save, whose lock is its own until
 * `end`. Of a failed save nothing stays.
 */

import { hash } from 'node:crypto';
import { closeSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError } from '../disk/damage.js';
import { isOutOfDescriptors } from '../disk/descriptors.js';
import { at, fsyncDirectory, PACKS, packFile, removeIfThere, SEGMENTS } from '../disk/layout.js';
import { hasSha256 } from '../pack/hashes.js';
import { SHA256_BYTES } from '../pack/pack-format.js';
import { PackHolds } from '../pack/pack-holds.js';
import { FrameCache, PackSet } from '../pack/pack-set.js';
import { PackWriter, type SealedPack } from '../pack/pack-writer.js';
import { FingerprintTable, MAX_CANDIDATES, type Segment } from '../segment/fingerprints.js';
import { type SegmentRow, segmentFile } from '../segment/segment-file.js';
import { SegmentProbe } from '../segment/segment-probe.js';
import { writeSegment } from '../segment/segment-writer.js';
import { ENTRY_WORDS, sortEntries } from '../segment/sorted-entries.js';
import type { PageBatch } from './page-batch.js';

export interface PackerResult {
  readonly packs: readonly SealedPack[];
  /** Packs of earlier saves that this one may refer to, as they are on disk. */
  readonly held: readonly SealedPack[];
  /** Has an entry for every chunk that this save wrote; null: it wrote none. */
  readonly segment: SegmentRow | null;
}

export class Packer {
  readonly #packs: PackSet;
  readonly #generations: Map<number, number>;
  readonly #holds: PackHolds;
  readonly #sealed: SealedPack[] = [];
  /** Segments written and not committed. */
  readonly #unlisted: SegmentRow[] = [];
  /** How many of the sealed packs have been committed on their own. */
  #kept = 0;
  /** Descriptors of the packs sealed, and of segments that are not listed yet: their locks. */
  readonly #locks: number[] = [];
  readonly #segmentLocks: number[] = [];
  readonly #segments: readonly Segment[];
  /** Those that this save has written on its way. */
  readonly #probes: SegmentProbe[] = [];
  /** Of what has not been committed: with the packs of a copy, which may be any number, it would grow for ever. */
  readonly #own = new FingerprintTable();
  readonly #candidates = new Uint32Array(MAX_CANDIDATES * 2);
  readonly #unusedNumbers: number[] = [];
  /** Frames of the pack being written. */
  #ownFrames = new FrameCache(64);
  #writer: PackWriter | null = null;
  #entries = new Uint32Array(4096 * ENTRY_WORDS);
  #entryWords = 0;

  /** `generations`: the packs that may be referred to. */
  constructor(
    readonly ops: PageOps,
    readonly dir: string,
    generations: Map<number, number>,
    segments: readonly Segment[],
  ) {
    this.#generations = generations;
    this.#packs = new PackSet(ops, dir, (number) => generations.get(number));
    this.#holds = new PackHolds(dir, generations);
    this.#segments = segments;
  }

  /** Gives numbers for packs to come; there is always one more than needed. */
  addPackNumbers(numbers: readonly number[]): void {
    this.#unusedNumbers.push(...numbers);
  }

  /** Chunks that were written since the last checkpoint. */
  get uncommitted(): number {
    return this.#entryWords / ENTRY_WORDS;
  }

  /** How many more packs can be begun. */
  get spareNumbers(): number {
    return this.#unusedNumbers.length;
  }

  /** Fills in fingerprint and place of the first `count` pages. */
  deduplicate(batch: PageBatch, count: number, manifest: boolean): void {
    const { pages, fingerprints, fingerprintWords: words, places, priorFingerprints, priorPlaces } = batch;
    this.ops.hashPages(pages, count, fingerprints);
    for (let i = 0; i < count; i++) {
      const low = words[2 * i]!;
      const high = words[2 * i + 1]!;
      let pack = 0;
      let chunk = 0;
      if (low !== 0 || high !== 0) {
        const priorPack = priorPlaces[2 * i]!;
        if (
          priorPack !== 0 &&
          priorFingerprints[2 * i] === low &&
          priorFingerprints[2 * i + 1] === high &&
          this.#has(priorPack, priorPlaces[2 * i + 1]!, pages, i * PAGE_BYTES)
        ) {
          pack = priorPack;
          chunk = priorPlaces[2 * i + 1]!;
        } else {
          const hit = this.#find(low, high, pages, i * PAGE_BYTES);
          if (hit >= 0) {
            pack = this.#candidates[2 * hit]!;
            chunk = this.#candidates[2 * hit + 1]!;
          } else {
            const writer = this.#writerWithRoom();
            pack = writer.number;
            chunk = writer.append(pages, i * PAGE_BYTES, fingerprints.subarray(8 * i, 8 * i + 8), manifest);
            this.#remember(low, high, pack, chunk, hit !== CROWDED);
          }
        }
      }
      places[2 * i] = pack;
      places[2 * i + 1] = chunk;
    }
  }

  /** Index of the candidate that holds the page; else {@link MISS}, or {@link CROWDED}. */
  #find(low: number, high: number, pages: Uint8Array, offset: number): number {
    return this.#search(low, high, (pack, chunk) => this.#has(pack, chunk, pages, offset));
  }

  #search(low: number, high: number, isIt: (pack: number, chunk: number) => boolean): number {
    const candidates = this.#candidates;
    let found = this.#own.find(low, high, candidates, 0);
    const crowded = found === MAX_CANDIDATES;
    for (const segment of this.#segments) found = segment.find(low, high, candidates, found);
    for (const probe of this.#probes) found = probe.find(low, high, candidates, found);
    for (let c = 0; c < found; c++) {
      const pack = candidates[2 * c]!;
      if (!this.#mayUse(pack)) continue;
      if (isIt(pack, candidates[2 * c + 1]!)) return c;
    }
    return crowded ? CROWDED : MISS;
  }

  #mayUse(pack: number): boolean {
    return (
      this.#writer?.number === pack ||
      this.#sealed.some(({ number }) => number === pack) ||
      this.#mayUseOfOthers(pack)
    );
  }

  /** What was read of the pack before it was held may have been of a generation that gc has replaced since. */
  #mayUseOfOthers(pack: number): boolean {
    if (!this.#holds.hold(pack)) return false;
    this.#packs.useGeneration(pack, this.#generations.get(pack)!);
    return true;
  }

  /** Whether a chunk can be read and has these bytes. */
  #has(pack: number, chunk: number, pages: Uint8Array, offset: number): boolean {
    try {
      const known = this.#read(pack, chunk);
      return known !== null && this.ops.equal(known.bytes, known.offset, pages, offset, PAGE_BYTES);
    } catch (error) {
      if (error instanceof DamageError) return false;
      throw error;
    }
  }

  /** Whether a chunk can be read and has this SHA-256. */
  #hasDigest(pack: number, chunk: number, digest: Uint8Array): boolean {
    try {
      const known = this.#read(pack, chunk);
      return (
        known !== null && hasSha256(known.bytes.subarray(known.offset, known.offset + PAGE_BYTES), digest)
      );
    } catch (error) {
      if (error instanceof DamageError) return false;
      throw error;
    }
  }

  #read(pack: number, chunk: number): { bytes: Uint8Array; offset: number } | null {
    const writer = this.#writer;
    if (writer?.number === pack) {
      if (chunk >= writer.chunks) return null;
      const pending = writer.pendingChunk(chunk);
      if (pending) return pending;
      const index = writer.frames.indexOf(chunk);
      const bytes = this.#ownFrames.get(index, (raw) => writer.readFrame(index, raw));
      return { bytes, offset: (chunk - writer.frames.at(index).first) * PAGE_BYTES };
    }
    // A segment may still list chunks of a pack that gc has removed: its number is never used again.
    return this.#packs.has(pack) ? this.#packs.chunk(pack, chunk) : null;
  }

  #writerWithRoom(): PackWriter {
    if (this.#writer?.full) this.#seal();
    if (!this.#writer) {
      const number = this.#unusedNumbers.shift();
      if (number === undefined) throw new Error('the save has no pack number left');
      this.#writer = new PackWriter(this.ops, this.dir, number, 0);
      this.#ownFrames = new FrameCache(64);
    }
    return this.#writer;
  }

  #remember(low: number, high: number, pack: number, chunk: number, findable: boolean): void {
    if (findable) this.#own.add(low, high, pack, chunk);
    if (this.#entryWords === this.#entries.length) {
      const grown = new Uint32Array(this.#entries.length * 2);
      grown.set(this.#entries);
      this.#entries = grown;
    }
    this.#entries[this.#entryWords++] = low;
    this.#entries[this.#entryWords++] = high;
    this.#entries[this.#entryWords++] = pack;
    this.#entries[this.#entryWords++] = chunk;
  }

  #seal(): void {
    const writer = this.#writer!;
    const sealed = writer.seal();
    this.#writer = null;
    this.#locks.push(writer.takeDescriptor());
    this.#sealed.push(sealed);
    this.#generations.set(sealed.number, sealed.generation);
  }

  /** The segment has the number of the first pack. */
  #writeSegment(number: number | undefined): SegmentRow | null {
    if (number === undefined) return null;
    const count = this.uncommitted;
    const entries = sortEntries(this.#entries.subarray(0, this.#entryWords));
    this.#entryWords = 0;
    const { row, fd } = writeSegment(this.ops, this.dir, number, [entries], count)!;
    this.#segmentLocks.push(fd);
    this.#unlisted.push(row);
    fsyncDirectory(at(this.dir, SEGMENTS));
    return row;
  }

  /** Seals what was written; afterwards it survives a power cut. */
  seal(): PackerResult {
    const sealed = this.checkpoint();
    const held = this.#heldPacks();
    this.#packs.close();
    return { ...sealed, held };
  }

  #heldPacks(): SealedPack[] {
    return [...this.#holds.numbers].flatMap((number) => {
      try {
        const { pack, numbers, sizeBytes } = this.#packs.pack(number);
        return [{ number, generation: pack.generation, chunks: numbers.length, sizeBytes }];
      } catch (error) {
        if (error instanceof DamageError) return []; // and so nothing in it was used
        throw error;
      }
    });
  }

  /** Seals what was written since the last checkpoint; the save goes on. */
  checkpoint(): PackerResult {
    if (this.#writer) this.#seal();
    const packs = this.#sealed.slice(this.#kept);
    if (packs.length > 0) fsyncDirectory(at(this.dir, PACKS));
    return { packs, held: [], segment: this.#writeSegment(packs[0]?.number) };
  }

  /**
   * What was sealed so far has been committed, and is not this packer's to take away. Its chunks are found by their
   * segment from now on, as those of other saves; or, unless `findable`, not any more.
   */
  keep(findable: boolean): void {
    this.#kept = this.#sealed.length;
    for (const row of this.#unlisted.splice(0)) if (findable) this.#probe(row);
    this.#own.clear();
    for (const fd of this.#segmentLocks.splice(0)) closeSync(fd);
  }

  /** What cannot be probed is done without: its chunks are stored once more. */
  #probe(row: SegmentRow): void {
    try {
      this.#probes.push(new SegmentProbe(this.dir, row));
    } catch (error) {
      if (!(error instanceof DamageError) && !isOutOfDescriptors(error)) throw error;
    }
  }

  /**
   * Finds chunks by identity, 8 and 32 bytes each: places of chunks that were read and have this SHA-256, in packs
   * that are held; 0, 0 for those that are not here.
   */
  locate(fingerprints: Uint8Array, digests: Uint8Array): Uint32Array {
    const words = new Uint32Array(fingerprints.slice().buffer);
    const places = new Uint32Array(words.length);
    for (let i = 0; i < words.length; i += 2) {
      const digest = digests.subarray(16 * i, 16 * i + SHA256_BYTES);
      const hit = this.#search(words[i]!, words[i + 1]!, (pack, chunk) =>
        this.#hasDigest(pack, chunk, digest),
      );
      if (hit < 0) continue;
      places[i] = this.#candidates[2 * hit]!;
      places[i + 1] = this.#candidates[2 * hit + 1]!;
    }
    return places;
  }

  /**
   * Stores pages that came from elsewhere; `digest` is the SHA-256 of the SHA-256s that were announced. Errors:
   * REMOTE_FAILED when one is not what was promised.
   */
  storeReceived(batch: PageBatch, count: number, digest: Uint8Array): void {
    const digests = Buffer.alloc(count * SHA256_BYTES);
    for (let i = 0; i < count; i++)
      digests.set(
        hash('sha256', batch.pages.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES), 'buffer'),
        i * SHA256_BYTES,
      );
    if (!hasSha256(digests, digest))
      throw new LivesnapError('REMOTE_FAILED', 'a page that arrived is not the one that was announced', {
        hint: 'Try again; if it comes back, run livesnap check --read-data on the other side.',
      });
    batch.priorPlaces.fill(0);
    this.deduplicate(batch, count, false);
  }

  /** Lets go of all packs: the save has been committed. */
  end(): void {
    this.#packs.close();
    this.#writer?.close();
    this.#holds.release();
    for (const fd of [...this.#locks.splice(0), ...this.#segmentLocks.splice(0)]) closeSync(fd);
    for (const probe of this.#probes.splice(0)) probe.close();
  }

  /** Errors: those of unlinking; what is left is an orphan, and nothing of it is held any more. */
  abort(): void {
    try {
      this.#writer?.abandon();
      for (const { number, generation } of this.#sealed.slice(this.#kept))
        removeIfThere(at(this.dir, packFile(number, generation)));
      for (const { number } of this.#unlisted) removeIfThere(at(this.dir, segmentFile(number)));
    } finally {
      this.end();
    }
  }
}

const MISS = -1;
/** As MISS, and so many chunks of this save have the fingerprint that another would only slow the save down. */
const CROWDED = -2;
