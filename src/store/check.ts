/**
 * check: finds damage and names the snapshots and regions that it affects (docs/format.md, "check").
 *
 * It always reads the index, all snapshot files, manifests and segments, and the lists of all packs. With `readData`
 * it also verifies the bytes of packs against checksum, digest and fingerprint, and the fingerprints of packs against
 * those of manifests.
 *
 * Invariants:
 * - It changes nothing, except for the record of which packs were read.
 * - It runs beside saves, rm and gc: damage counts only if the index still lists the file.
 */
import { setImmediate } from 'node:timers/promises';
import { LivesnapError } from '../errors.js';
import type { StoreContext } from './context.js';
import { DamageError } from './disk/damage.js';
import {
  DATABASE,
  HIGHEST_NUMBER,
  isTemporary,
  namesIn,
  packFile,
  storeError,
  TAG_LABEL,
  TAGS,
} from './disk/layout.js';
import { MissingFileError } from './disk/store-file.js';
import type { OnInvalidRow } from './index/connection.js';
import { type PackRow, snapshotRow } from './index/index-database.js';
import { PACK_CHUNKS } from './pack/pack-format.js';
import type { PackReader } from './pack/pack-reader.js';
import type { PackSet } from './pack/pack-set.js';
import { BLOCK_PAGES, type BlockEntry, type Place, pagesOfBlock } from './snapshot/block-list.js';
import { ChunkSet } from './snapshot/chunk-set.js';
import { type ManifestBlock, readBlock } from './snapshot/manifest.js';
import { readSnapshotFile, snapshotFile } from './snapshot/snapshot-file.js';
import { readTag } from './tags.js';
import type { CheckOptions, Problem, Progress } from './types.js';
import type { PackProblem } from './worker/page-jobs.js';
import { onPageWorkers, pageWorker } from './worker/page-pool.js';

/** What a finding affects: a region of a snapshot; null: the snapshot's file. One object for each. */
interface Affected {
  readonly snapshot: string;
  readonly region: string | null;
}

/** A problem whose list of what it affects still grows. */
interface Finding {
  readonly file: string;
  readonly offset: number | null;
  readonly message: string;
  readonly affects: Affected[];
}

export async function checkStore(
  context: StoreContext,
  { readData, signal }: CheckOptions,
  progress?: Progress,
): Promise<{ ok: boolean; problems: Problem[] }> {
  const lock = await context.lock('shared', signal);
  try {
    const check = new Check(context, readData !== false, signal);
    check.index();
    await check.packs(readData, progress);
    await check.snapshots();
    check.numbers();
    await check.segments();
    const problems = check.problems();
    return { ok: problems.length === 0, problems };
  } catch (error) {
    throw storeError(context.dir, error);
  } finally {
    lock.release();
  }
}

/** The findings so far. A scrambled store has hundreds of thousands, one per frame, so they are never searched. */
class Findings {
  readonly #all = new Map<string, Finding>();

  /** Adds a finding, or returns the equal one that was added before. */
  add(file: string, offset: number | null, message: string): Finding {
    const key = `${file} ${offset} ${message}`;
    let finding = this.#all.get(key);
    if (!finding) {
      finding = { file, offset, message, affects: [] };
      this.#all.set(key, finding);
    }
    return finding;
  }

  problems(): Problem[] {
    return Array.from(this.#all.values(), ({ file, offset, message, affects }) => {
      const sorted = [...new Set(affects)].sort(
        (a, b) => Number(a.snapshot > b.snapshot) - Number(a.snapshot < b.snapshot),
      );
      const snapshots = [...new Set(sorted.map(({ snapshot }) => snapshot))];
      return { file, offset, snapshots, regions: sorted.filter(isRegion), message };
    });
  }
}

const isRegion = (affected: Affected): affected is Problem['regions'][number] => affected.region !== null;

/**
 * Adds a region to a finding. Regions are checked one by one, so comparing with the last avoids most duplicates.
 */
function blame(finding: Finding, affected: Affected): void {
  if (finding.affects.at(-1) !== affected) finding.affects.push(affected);
}

/** The findings that make chunks of packs unreadable. */
class LostChunks {
  readonly #packs = new Map<
    number,
    { readonly whole: Finding[]; readonly some: Finding[]; readonly byChunk: Uint32Array }
  >();

  /** The offsets of these findings, by file. */
  readonly #places = new Map<string, Set<number | null>>();

  /** `chunks` null: all of the pack. A chunk keeps its first finding. */
  add(number: number, chunks: readonly number[] | null, finding: Finding): void {
    const offsets = this.#places.get(finding.file);
    if (offsets) offsets.add(finding.offset);
    else this.#places.set(finding.file, new Set([finding.offset]));
    let pack = this.#packs.get(number);
    if (!pack) {
      pack = { whole: [], some: [], byChunk: new Uint32Array(PACK_CHUNKS) };
      this.#packs.set(number, pack);
    }
    if (chunks === null) {
      pack.whole.push(finding);
      return;
    }
    pack.some.push(finding);
    for (const chunk of chunks) pack.byChunk[chunk] ||= pack.some.length;
  }

  /** Adds the region to the findings that make this chunk unreadable. */
  blame(number: number, chunk: number, affected: Affected): void {
    const pack = this.#packs.get(number);
    if (!pack) return;
    for (const finding of pack.whole) blame(finding, affected);
    const index = pack.byChunk[chunk] ?? 0;
    if (index > 0) blame(pack.some[index - 1]!, affected);
  }

  has(pack: number): boolean {
    return this.#packs.has(pack);
  }

  /** Whether a finding of a pack reports this error of reading a block already, with its snapshots. */
  covers(error: unknown, { places, fingerprints }: BlockEntry): boolean {
    if (error instanceof DamageError) return this.#places.get(error.file)?.has(error.offset) ?? false;
    // The error names no file. A pack that is found to be of a newer format is lost as a whole.
    const isLost = ({ pack }: Place): boolean => (this.#packs.get(pack)?.whole.length ?? 0) > 0;
    return (
      error instanceof LivesnapError && error.code === 'NEWER_FORMAT' && [places, fingerprints].some(isLost)
    );
  }

  get any(): boolean {
    return this.#packs.size > 0;
  }
}

/** Errors of the file itself. Others, such as a missing permission, end the check: repair could not help. */
const FILE_ERRORS = new Set<string>(['DAMAGED', 'NEWER_FORMAT']);

/** Leaves out invalid rows. They are reported once, by Check.index. */
const leaveOut: OnInvalidRow = () => {};

/** The packs whose data is read: all, none, or the least recently read ones up to the requested part of all bytes. */
function packsToRead(context: StoreContext, readData: CheckOptions['readData']): PackRow[] {
  const rows = context.index.packsToRead(leaveOut);
  if (readData === false) return [];
  if (readData === true) return rows;
  const wanted = (rows.reduce((total, { sizeBytes }) => total + sizeBytes, 0) * readData.part) / readData.of;
  let taken = 0;
  return rows.filter(({ sizeBytes }) => {
    if (taken >= wanted) return false;
    taken += sizeBytes;
    return true;
  });
}

class Check {
  readonly #findings = new Findings();
  readonly #lost = new LostChunks();
  /** The highest number of a pack or segment that exists or is referred to. */
  #highest = 0;

  constructor(
    readonly context: StoreContext,
    readonly readData: boolean,
    readonly signal: AbortSignal | undefined,
  ) {}

  problems(): Problem[] {
    return this.#findings.problems();
  }

  #find(file: string, offset: number | null, message: string, affected?: Affected): Finding {
    const finding = this.#findings.add(file, offset, message);
    if (affected !== undefined) blame(finding, affected);
    return finding;
  }

  index(): void {
    const { index, dir } = this.context;
    for (const message of index.integrityProblems()) this.#find(DATABASE, null, message);
    for (const { file, why } of index.invalidRows()) this.#find(file, null, why);
    for (const { label, snapshot } of index.damagedTags())
      this.#find(DATABASE, null, `the row of the tag ${label} does not match its digest`, {
        snapshot,
        region: null,
      });
    for (const name of namesIn(dir, TAGS)) {
      if (!TAG_LABEL.test(name) || isTemporary(name)) continue;
      try {
        readTag(dir, name);
      } catch (error) {
        if (!(error instanceof DamageError)) throw error;
        // A missing file was deleted by another process meanwhile.
        if (!(error instanceof MissingFileError)) this.#find(error.file, error.offset, error.why);
      }
    }
  }

  async packs(readData: CheckOptions['readData'], progress?: Progress): Promise<void> {
    const { index, write } = this.context;
    const toRead = packsToRead(this.context, readData);
    const isRead = new Set(toRead.map(({ number }) => number));
    const damaged = new Set<number>();
    const startedAt = new Date().toISOString();
    const rows = index.packs(leaveOut);
    const weight = (row: PackRow): number => (isRead.has(row.number) ? row.sizeBytes : row.chunks * 44);
    const totalBytes = rows.reduce((total, row) => total + weight(row), 0);
    let doneBytes = 0;
    const checkPack = async (worker: number, row: PackRow): Promise<void> => {
      this.#highest = Math.max(this.#highest, row.number);
      const isSound = await this.#pack(worker, row, isRead.has(row.number));
      if (!isSound) damaged.add(row.number);
      doneBytes += weight(row);
      progress?.(doneBytes, totalBytes);
    };
    await onPageWorkers(rows, checkPack, this.signal);
    if (write && toRead.length > 0) index.noteRead(toRead, damaged, startedAt);
  }

  /** Whether there is no problem. */
  async #pack(worker: number, row: PackRow, readData: boolean): Promise<boolean> {
    const { index } = this.context;
    const { number } = row;
    const problems = await this.#verify(worker, row, readData);
    if (problems.length === 0) return true;
    const generation = index.generationOf(number);
    if (generation === undefined) return true; // gc has deleted it meanwhile
    if (generation !== row.generation)
      return this.#pack(
        worker,
        index.packs(leaveOut).find((pack) => pack.number === number) ?? row,
        readData,
      );
    for (const { chunks, file, offset, message } of problems)
      this.#lost.add(number, chunks, this.#find(file, offset, message));
    return false;
  }

  async #verify(worker: number, row: PackRow, readData: boolean): Promise<readonly PackProblem[]> {
    const { context } = this;
    const { number, generation } = row;
    const file = packFile(number, generation);
    try {
      const { problems, listed } = await pageWorker(worker).do('verifyPack', {
        dir: context.dir,
        pack: { number, generation },
        fingerprintBits: context.fingerprintBits,
        readData,
      });
      if (!listed || (listed.chunks === row.chunks && listed.sizeBytes === row.sizeBytes)) return problems;
      const message = `the row of ${file} differs from the pack`;
      return [...problems, { file: DATABASE, offset: null, message, chunks: [] }];
    } catch (error) {
      if (error instanceof LivesnapError && error.code === 'NEWER_FORMAT')
        return [{ file, offset: 8, message: error.message, chunks: null }];
      throw error;
    }
  }

  async snapshots(): Promise<void> {
    const { index } = this.context;
    const packs = this.context.packSet();
    const validBlocks = new ChunkSet();
    try {
      for (const id of index.ids(leaveOut)) {
        await setImmediate(); // so that the signal can be aborted
        this.signal?.throwIfAborted();
        this.#snapshot(packs, validBlocks, id);
      }
    } finally {
      packs.close();
    }
  }

  #snapshot(packs: PackSet, validBlocks: ChunkSet, id: string): void {
    const { context } = this;
    const whole = { snapshot: id, region: null };
    const failed = (error: unknown, affected: Affected): void => {
      if (!(error instanceof LivesnapError) || !FILE_ERRORS.has(error.code)) throw error;
      if (!context.index.has(id)) return; // removed meanwhile
      const damage = error instanceof DamageError ? error : null;
      this.#find(
        damage?.file ?? snapshotFile(id),
        damage?.offset ?? null,
        damage?.why ?? error.message,
        affected,
      );
    };
    let file: ReturnType<typeof readSnapshotFile>;
    try {
      file = readSnapshotFile(context.dir, id);
    } catch (error) {
      failed(error, whole);
      return;
    }
    const listed = context.index.row(id, leaveOut);
    const row = snapshotRow(file);
    if (listed && JSON.stringify(row) !== JSON.stringify({ ...listed, labels: listed.labels ?? row.labels }))
      this.#find(DATABASE, null, `the row of snapshot ${id} differs from its file`, whole);
    const { description } = file;
    const regions = description.regions.map(({ name }) => ({ snapshot: id, region: name }));
    for (const entry of file.blocks) {
      const { places, fingerprints } = entry;
      const affected = regions[entry.region]!;
      this.#noteNumber(places.pack);
      this.#noteNumber(fingerprints.pack);
      this.#lost.blame(places.pack, places.chunk, affected);
      this.#lost.blame(fingerprints.pack, fingerprints.chunk, affected);
      // A block of another snapshot that was valid is not read again, unless chunks are lost or the region ends inside
      // the block.
      const pages = pagesOfBlock(description.regions, entry);
      if (validBlocks.has(places.pack, places.chunk) && !this.#lost.any && pages === BLOCK_PAGES) continue;
      try {
        const block = readBlock(context.ops, packs, description, entry);
        this.#requireChunks(packs, block);
        for (let page = 0; this.#lost.any && page < BLOCK_PAGES; page++)
          if (!block.isZero(page))
            this.#lost.blame(block.places[2 * page]!, block.places[2 * page + 1]!, affected);
        validBlocks.add(places.pack, places.chunk);
      } catch (error) {
        // A finding of the pack is not repeated for each block.
        if (!this.#lost.covers(error, entry)) failed(error, affected);
      }
    }
  }

  /** Checks that each place of a block is a chunk of a pack. A pack that cannot be read has its own finding. */
  #requireChunks(packs: PackSet, block: ManifestBlock): void {
    for (let page = 0; page < BLOCK_PAGES; page++) {
      if (block.isZero(page)) continue;
      const number = block.places[2 * page]!;
      this.#noteNumber(number);
      if (!packs.has(number)) throw new DamageError(packFile(number, 0), null, 'the pack is missing');
      let pack: PackReader;
      try {
        pack = packs.pack(number);
      } catch (error) {
        if (this.#lost.has(number)) continue;
        throw error;
      }
      const chunk = block.places[2 * page + 1]!;
      const position = pack.positionOf(chunk);
      if (position < 0)
        throw new DamageError(pack.file, pack.footer.trailerOffset, `the pack has no chunk ${chunk}`);
      if (this.readData && !this.#isListed(pack, position, block, page))
        throw new DamageError(
          pack.file,
          packs.offsetOf(number, chunk),
          `chunk ${chunk} is not the page that was saved`,
        );
    }
  }

  /** Whether the pack lists the fingerprint of the block. A pack whose list cannot be read has its own finding. */
  #isListed(pack: PackReader, position: number, { fingerprints }: ManifestBlock, page: number): boolean {
    try {
      return pack.isListedAs(position, fingerprints[2 * page]!, fingerprints[2 * page + 1]!);
    } catch (error) {
      if (error instanceof DamageError) return true;
      throw error;
    }
  }

  #noteNumber(number: number): void {
    if (number > this.#highest && number <= HIGHEST_NUMBER) this.#highest = number;
  }

  /**
   * Checks that the next number is unused. If it were used twice, references to a deleted pack would find another one.
   */
  numbers(): void {
    const { index } = this.context;
    for (const { number } of index.segments(leaveOut)) this.#highest = Math.max(this.#highest, number);
    const next = index.nextNumber(leaveOut);
    if (next > 0 && next <= this.#highest)
      this.#find(DATABASE, null, `the next number is ${next}, but ${this.#highest} is in use`);
  }

  /** Reads every byte of every segment: a wrong entry hides a chunk from saves. */
  async segments(): Promise<void> {
    const { index, dir } = this.context;
    for (const row of index.segments(leaveOut)) {
      this.signal?.throwIfAborted();
      const problem = await pageWorker(0).do('verifySegment', { dir, row });
      if (problem && index.hasSegment(row.number)) this.#find(problem.file, problem.offset, problem.message);
    }
    // More entries than chunks are no problem: an interrupted gc leaves them. Both are read at once, as a save may
    // commit.
    const { listed, chunks } = index.coverage();
    if (listed < chunks)
      this.#find(DATABASE, null, `the segments list ${listed} chunks, but the packs have ${chunks}`);
  }
}
