/**
 * Deduplicates and stores the pages of one save, in a page Worker: fingerprint a page, look for a chunk with the same
 * bytes, or else append the page to a pack (docs/format.md, "Saving").
 *
 * Invariants:
 * - A zero page is never stored and never looked up.
 * - A page becomes a reference only if its bytes equal those of a chunk that was read and passed its checksum.
 * - gc cannot delete a pack that the save refers to: the pack is locked, by this save or through the pinned parent.
 * - When a save fails, its files are deleted.
 */

import { hash } from 'node:crypto';
import { closeSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import { PageProof } from '../../native/page-proof.js';
import type { PageOps } from '../../native/pages.js';
import { BATCH_PAGES, PAGE_BYTES } from '../../page-stream.js';
import { DamageError } from '../disk/damage.js';
import { isOutOfDescriptors } from '../disk/descriptors.js';
import { at, PACKS, packFile, removeIfThere } from '../disk/layout.js';
import { DEFAULT_DIGEST, DIGEST_BYTES, digestsOf, hasDigest } from '../pack/digest.js';
import { PackHolds } from '../pack/pack-holds.js';
import { FrameCache, PackSet } from '../pack/pack-set.js';
import { PackWriter, type SealedPack } from '../pack/pack-writer.js';
import { FingerprintTable, MAX_CANDIDATES, type Segment } from '../segment/fingerprints.js';
import { type SegmentRow, segmentFile } from '../segment/segment-file.js';
import { SegmentProbe } from '../segment/segment-probe.js';
import { type WrittenSegment, writeSegment } from '../segment/segment-writer.js';
import { ENTRY_WORDS, sortEntries } from '../segment/sorted-entries.js';
import type { PageBatch } from './page-batch.js';

export interface PackerResult {
  readonly packs: readonly SealedPack[];
  /** Packs of earlier saves that this save may refer to, as they are on disk. */
  readonly held: readonly SealedPack[];
  /** Lists every new chunk; null: there is none. */
  readonly segment: SegmentRow | null;
  /**
   * Descriptors of files that are written and not fsynced. They stay open until the session ends or the packs are kept.
   * Before the packs are committed the caller fsyncs these, and then the directories of packs and segments.
   */
  readonly unsynced: readonly number[];
}

/** A chunk is the PAGE_BYTES bytes from `offset` on. */
interface ChunkBytes {
  readonly bytes: Uint8Array;
  readonly offset: number;
}

export class Packer {
  readonly #packs: PackSet;
  readonly #generations: Map<number, number>;
  readonly #holds: PackHolds;
  /** Null: pages are compared one by one. */
  readonly #proof: PageProof | null;
  readonly #sealed: SealedPack[] = [];
  /** Segments that are written but not committed. */
  readonly #unlisted: SegmentRow[] = [];
  /** The number of sealed packs that checkpoints have committed. */
  #kept = 0;
  /** Descriptors of sealed packs, and of segments that are not committed. They hold the locks. */
  readonly #locks: number[] = [];
  readonly #segmentLocks: number[] = [];
  readonly #segments: readonly Segment[];
  /** The segments of this save's own checkpoints. */
  readonly #probes: SegmentProbe[] = [];
  /** Chunks written since the last checkpoint. */
  readonly #own = new FingerprintTable();
  readonly #candidates = new Uint32Array(MAX_CANDIDATES * 2);
  /** For the packs to come. */
  readonly #unusedNumbers: number[] = [];
  /** Frames of the pack being written. */
  #ownFrames = new FrameCache(64);
  #writer: PackWriter | null = null;
  #entries = new Uint32Array(4096 * ENTRY_WORDS);
  #entryWords = 0;

  /** `generations`: the packs of the index. `digest`: the ID of the digests of new packs. */
  constructor(
    readonly ops: PageOps,
    readonly dir: string,
    generations: Map<number, number>,
    segments: readonly Segment[],
    readonly digest = DEFAULT_DIGEST,
  ) {
    this.#generations = generations;
    this.#packs = new PackSet(ops, dir, (number) => generations.get(number));
    this.#holds = new PackHolds(dir, generations);
    this.#segments = segments;
    this.#proof = ops.name === 'native' ? new PageProof(at(dir, PACKS), BATCH_PAGES) : null;
  }

  /** The caller keeps at least one number in reserve: a batch begins at most one pack. */
  addPackNumbers(numbers: readonly number[]): void {
    this.#unusedNumbers.push(...numbers);
  }

  /** Chunks written since the last checkpoint. */
  get uncommitted(): number {
    return this.#entryWords / ENTRY_WORDS;
  }

  get spareNumbers(): number {
    return this.#unusedNumbers.length;
  }

  /**
   * Sets the places of the batch's first `count` pages, whose fingerprints are set. `manifest`: they are manifest blocks.
   */
  deduplicate(batch: PageBatch, count: number, manifest: boolean): void {
    const { fingerprintWords: words, places } = batch;
    const proof = this.#proof;
    if (proof) this.#proveLikely(proof, batch, count);
    // The claims are in the order of their pages.
    for (let i = 0, claim = 0; i < count; i++) {
      const claimed = proof !== null && claim < proof.count && proof.page(claim) === i ? claim++ : -1;
      if (words[2 * i] === 0 && words[2 * i + 1] === 0) setPlace(places, i, 0, 0);
      else if (claimed >= 0 && proof!.isTrue(claimed))
        setPlace(places, i, proof!.pack(claimed), proof!.chunk(claimed));
      else {
        const inNoSegment = proof !== null && claimed < 0 && !isUnchanged(batch, i);
        this.#deduplicatePage(batch, i, manifest, inNoSegment ? NO_SEGMENTS : this.#segments);
      }
    }
  }

  /** Proves all pages at once that equal the chunk which they most likely equal, so that each frame is read once. */
  #proveLikely(proof: PageProof, batch: PageBatch, count: number): void {
    const { fingerprintWords: words, priorPlaces } = batch;
    const candidates = this.#candidates;
    proof.clear();
    for (let i = 0; i < count; i++) {
      const low = words[2 * i]!;
      const high = words[2 * i + 1]!;
      if (low === 0 && high === 0) continue;
      if (isUnchanged(batch, i)) {
        const generation = this.#generations.get(priorPlaces[2 * i]!);
        if (generation !== undefined)
          proof.claim(i, priorPlaces[2 * i]!, generation, priorPlaces[2 * i + 1]!);
        continue;
      }
      let found = 0;
      for (const segment of this.#segments) found = segment.find(low, high, candidates, found);
      for (let c = 0; c < found; c++) {
        const pack = candidates[2 * c]!;
        if (!this.#mayUse(pack)) continue;
        proof.claim(i, pack, this.#generations.get(pack)!, candidates[2 * c + 1]!);
        break;
      }
    }
    if (proof.count > 0) proof.prove(batch.pages);
  }

  /** `segments`: those that may have the page. */
  #deduplicatePage(batch: PageBatch, i: number, manifest: boolean, segments: readonly Segment[]): void {
    const { pages, fingerprintWords: words, places, priorPlaces } = batch;
    const low = words[2 * i]!;
    const high = words[2 * i + 1]!;
    const offset = i * PAGE_BYTES;
    const priorPack = priorPlaces[2 * i]!;
    const priorChunk = priorPlaces[2 * i + 1]!;
    if (isUnchanged(batch, i) && this.#has(priorPack, priorChunk, pages, offset)) {
      setPlace(places, i, priorPack, priorChunk);
      return;
    }
    const hit = this.#search(low, high, segments, (pack, chunk) => this.#has(pack, chunk, pages, offset));
    if (hit >= 0) {
      setPlace(places, i, this.#candidates[2 * hit]!, this.#candidates[2 * hit + 1]!);
      return;
    }
    this.#append(batch, i, { manifest, findable: hit !== CROWDED });
  }

  /** Stores page `i` of the batch as a new chunk, and sets its place. */
  #append(
    batch: PageBatch,
    i: number,
    { manifest, findable }: { manifest: boolean; findable: boolean },
  ): void {
    const { pages, fingerprints, fingerprintWords: words, places } = batch;
    const writer = this.#writerWithRoom();
    const chunk = writer.append(pages, i * PAGE_BYTES, fingerprints.subarray(8 * i, 8 * i + 8), manifest);
    setPlace(places, i, writer.number, chunk);
    this.#addEntry(words[2 * i]!, words[2 * i + 1]!, writer.number, chunk, findable);
  }

  /** Index of the candidate that is the same, {@link MISS} or {@link CROWDED}. */
  #search(
    low: number,
    high: number,
    segments: readonly Segment[],
    isSame: (pack: number, chunk: number) => boolean,
  ): number {
    const candidates = this.#candidates;
    let found = this.#own.find(low, high, candidates, 0);
    const crowded = found === MAX_CANDIDATES;
    for (const segment of segments) found = segment.find(low, high, candidates, found);
    for (const probe of this.#probes) found = probe.find(low, high, candidates, found);
    for (let c = 0; c < found; c++) {
      const pack = candidates[2 * c]!;
      if (!this.#mayUse(pack)) continue;
      if (isSame(pack, candidates[2 * c + 1]!)) return c;
    }
    return crowded ? CROWDED : MISS;
  }

  #mayUse(pack: number): boolean {
    return (
      this.#writer?.number === pack || this.#sealed.some(({ number }) => number === pack) || this.#lock(pack)
    );
  }

  /** Once the pack is locked, its generation is final. Frames read before may be of an older one. */
  #lock(pack: number): boolean {
    if (!this.#holds.hold(pack)) return false;
    this.#packs.useGeneration(pack, this.#generations.get(pack)!);
    return true;
  }

  /** False also for a chunk that cannot be read: the page is stored again. */
  #has(pack: number, chunk: number, pages: Uint8Array, offset: number): boolean {
    const known = this.#readIfIntact(pack, chunk);
    return known !== null && this.ops.equal(known.bytes, known.offset, pages, offset, PAGE_BYTES);
  }

  /** Whatever digest the pack lists, the one that is wanted is computed from the bytes. */
  #hasDigest(pack: number, chunk: number, id: number, digest: Uint8Array): boolean {
    const known = this.#readIfIntact(pack, chunk);
    return (
      known !== null &&
      hasDigest(this.ops, id, known.bytes.subarray(known.offset, known.offset + PAGE_BYTES), digest)
    );
  }

  #readIfIntact(pack: number, chunk: number): ChunkBytes | null {
    try {
      return this.#read(pack, chunk);
    } catch (error) {
      if (error instanceof DamageError) return null;
      throw error;
    }
  }

  #read(pack: number, chunk: number): ChunkBytes | null {
    const writer = this.#writer;
    if (writer?.number === pack) {
      if (chunk >= writer.chunks) return null;
      const pending = writer.pendingChunk(chunk);
      if (pending) return pending;
      const index = writer.frames.indexOf(chunk);
      const bytes = this.#ownFrames.get(index, (raw) => writer.readFrame(index, raw));
      return { bytes, offset: (chunk - writer.frames.at(index).first) * PAGE_BYTES };
    }
    // A segment may list chunks of a pack that gc has deleted. Pack numbers are never reused.
    return this.#packs.has(pack) ? this.#packs.chunk(pack, chunk) : null;
  }

  /**
   * Stores the chunks at the batch's prior places once more, though they are known, and sets their new places. One that
   * cannot be read, or is not what the prior fingerprint says, keeps its place.
   */
  storeAgain(batch: PageBatch, count: number): void {
    const { pages, fingerprints, fingerprintWords, places, priorPlaces, priorFingerprints } = batch;
    for (let i = 0; i < count; i++) {
      const known = this.#readIfIntact(priorPlaces[2 * i]!, priorPlaces[2 * i + 1]!);
      if (known) pages.set(known.bytes.subarray(known.offset, known.offset + PAGE_BYTES), i * PAGE_BYTES);
      else pages.fill(0, i * PAGE_BYTES, (i + 1) * PAGE_BYTES); // its fingerprint differs, as no zero page has a place
    }
    this.ops.hashPages(pages, count, fingerprints);
    for (let i = 0; i < count; i++) {
      if (isUnchanged(batch, i)) this.#append(batch, i, { manifest: false, findable: false });
      else {
        setPlace(places, i, priorPlaces[2 * i]!, priorPlaces[2 * i + 1]!);
        fingerprintWords.set(priorFingerprints.subarray(2 * i, 2 * i + 2), 2 * i);
      }
    }
  }

  /** Reads the chunks at the batch's places. Errors: DAMAGED. */
  readBack(batch: PageBatch, count: number): void {
    for (let i = 0; i < count; i++) {
      const pack = batch.places[2 * i]!;
      const chunk = batch.places[2 * i + 1]!;
      const known = this.#read(pack, chunk);
      if (!known) throw new DamageError(packFile(pack, 0), null, `chunk ${chunk} cannot be read back`);
      batch.pages.set(known.bytes.subarray(known.offset, known.offset + PAGE_BYTES), i * PAGE_BYTES);
    }
  }

  #writerWithRoom(): PackWriter {
    if (this.#writer?.full) this.#seal({ sync: true });
    if (!this.#writer) {
      const number = this.#unusedNumbers.shift();
      if (number === undefined) throw new Error('the save has run out of pack numbers');
      this.#writer = new PackWriter(this.ops, this.dir, number, 0, { digest: this.digest });
      this.#ownFrames = new FrameCache(64);
    }
    return this.#writer;
  }

  #addEntry(low: number, high: number, pack: number, chunk: number, findable: boolean): void {
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

  /** Returns the descriptor of the pack, which holds its lock. */
  #seal({ sync }: { sync: boolean }): number {
    const writer = this.#writer!;
    const sealed = writer.seal({ sync });
    this.#writer = null;
    const fd = writer.takeDescriptor();
    this.#locks.push(fd);
    this.#sealed.push(sealed);
    this.#generations.set(sealed.number, sealed.generation);
    return fd;
  }

  /** `number`: that of the first new pack; undefined: there is none. */
  #writeSegment(number: number | undefined): WrittenSegment | null {
    if (number === undefined) return null;
    const count = this.uncommitted;
    const entries = sortEntries(this.#entries.subarray(0, this.#entryWords));
    this.#entryWords = 0;
    const written = writeSegment(this.ops, this.dir, number, [entries], count, { sync: false })!;
    this.#segmentLocks.push(written.fd);
    this.#unlisted.push(written.row);
    return written;
  }

  /** Seals the last packs. */
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
        if (error instanceof DamageError) return []; // no chunk of it was used
        throw error;
      }
    });
  }

  /** Seals the packs written since the last checkpoint. */
  checkpoint(): PackerResult {
    // Packs that filled up before were fsynced then, while the source went on.
    const unsynced = this.#writer ? [this.#seal({ sync: false })] : [];
    const packs = this.#sealed.slice(this.#kept);
    const segment = this.#writeSegment(packs[0]?.number);
    if (segment) unsynced.push(segment.fd);
    return { packs, held: [], segment: segment?.row ?? null, unsynced };
  }

  /**
   * The packs of the last checkpoint are committed, so `abort` no longer deletes them. With `findable`, later pages can
   * still refer to them, through their segment.
   */
  keep(findable: boolean): void {
    this.#kept = this.#sealed.length;
    for (const row of this.#unlisted.splice(0)) if (findable) this.#probe(row);
    this.#own.clear();
    for (const fd of this.#segmentLocks.splice(0)) closeSync(fd);
  }

  /** If the segment cannot be opened, pages that equal its chunks are stored again. */
  #probe(row: SegmentRow): void {
    try {
      this.#probes.push(new SegmentProbe(this.dir, row));
    } catch (error) {
      if (!(error instanceof DamageError) && !isOutOfDescriptors(error)) throw error;
    }
  }

  /**
   * Finds chunks by fingerprint (8 bytes each) and digest (32 bytes each, all under the ID `id`). Returns their places in
   * locked packs; 0, 0: not found.
   */
  locate(fingerprints: Uint8Array, digests: Uint8Array, id: number): Uint32Array {
    const words = new Uint32Array(fingerprints.slice().buffer);
    const places = new Uint32Array(words.length);
    for (let i = 0; i < words.length; i += 2) {
      const digest = digests.subarray(16 * i, 16 * i + DIGEST_BYTES);
      const hit = this.#search(words[i]!, words[i + 1]!, this.#segments, (pack, chunk) =>
        this.#hasDigest(pack, chunk, id, digest),
      );
      if (hit < 0) continue;
      places[i] = this.#candidates[2 * hit]!;
      places[i + 1] = this.#candidates[2 * hit + 1]!;
    }
    return places;
  }

  /**
   * Stores pages from another store. `ids`: the ID of each page's digest. `digest`: the expected SHA-256 of their digests.
   * Errors: REMOTE_FAILED.
   */
  storeReceived(batch: PageBatch, ids: Uint8Array, digest: Uint8Array): void {
    const count = ids.length;
    const digests = Buffer.alloc(count * DIGEST_BYTES);
    for (const id of new Set(ids)) {
      const found = digestsOf(this.ops, id, batch.pages, count);
      ids.forEach((other, i) => {
        if (other === id) found.copy(digests, i * DIGEST_BYTES, i * DIGEST_BYTES, (i + 1) * DIGEST_BYTES);
      });
    }
    if (!hash('sha256', digests, 'buffer').equals(digest))
      throw new LivesnapError('REMOTE_FAILED', 'received a page that does not match its digest', {
        hint: 'Copy again. If it fails again, run livesnap check --read-data at the source.',
      });
    batch.priorPlaces.fill(0);
    this.ops.hashPages(batch.pages, count, batch.fingerprints);
    this.deduplicate(batch, count, false);
  }

  /** Ends the session: closes and unlocks all packs. */
  end(): void {
    this.#packs.close();
    this.#proof?.close();
    this.#writer?.close();
    this.#holds.release();
    for (const fd of [...this.#locks.splice(0), ...this.#segmentLocks.splice(0)]) closeSync(fd);
    for (const probe of this.#probes.splice(0)) probe.close();
  }

  /** Deletes what is not committed, and ends the session. A file that cannot be deleted is left to gc. */
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

const NO_SEGMENTS: readonly Segment[] = [];
/** No chunk holds the page. */
const MISS = -1;
/** As MISS. So many chunks of this save have the page's fingerprint that one more would only slow the save down. */
const CROWDED = -2;

/** The parent has a page with the same fingerprint at the same address. */
const isUnchanged = ({ fingerprintWords, priorFingerprints, priorPlaces }: PageBatch, i: number): boolean =>
  priorPlaces[2 * i] !== 0 &&
  priorFingerprints[2 * i] === fingerprintWords[2 * i] &&
  priorFingerprints[2 * i + 1] === fingerprintWords[2 * i + 1];

function setPlace(places: Uint32Array, i: number, pack: number, chunk: number): void {
  places[2 * i] = pack;
  places[2 * i + 1] = chunk;
}
