/**
 * check: looks for damage and says which snapshots it touches (docs/format.md, "check").
 *
 * Without `readData` it reads the index, every snapshot's file, every manifest, every segment and every pack's lists;
 * with it also the bytes of packs, all or those that were not read for longest, against checksum, SHA-256 and
 * fingerprint, and the fingerprints of packs against those of manifests. It changes nothing but its note of what was read.
 *
 * Runs beside saves, rm and gc: before something is called damaged it is looked at whether the index still wants it.
 */
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
import { type OnWrongRow, type PackRow, snapshotRow } from './index/index-database.js';
import { PACK_CHUNKS } from './pack/pack-format.js';
import type { PackReader } from './pack/pack-reader.js';
import type { PackSet } from './pack/pack-set.js';
import { type ManifestBlock, readBlock } from './snapshot/manifest.js';
import { BLOCK_PAGES, pagesOfBlock, readSnapshotFile, snapshotFile } from './snapshot/snapshot-file.js';
import { ChunkSet } from './snapshot/usage.js';
import { readTag } from './tags.js';
import type { CheckOptions, Problem, Progress } from './types.js';
import type { PackProblem } from './worker/page-jobs.js';
import { pageWorker, pageWorkerCount } from './worker/page-pool.js';

/** A problem while it is not yet known which snapshots it touches. */
interface Finding {
  readonly file: string;
  readonly offset: number | null;
  readonly message: string;
  readonly snapshots: string[];
}

export async function checkStore(
  context: StoreContext,
  { readData }: CheckOptions,
  progress?: Progress,
): Promise<{ ok: boolean; problems: Problem[] }> {
  const lock = await context.lock('shared');
  try {
    const check = new Check(context, readData !== false);
    check.index();
    await check.packs(readData, progress);
    check.snapshots();
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

/** What was found so far. A scrambled store has one finding a frame, hundreds of thousands: nothing looks through them. */
class Findings {
  readonly #all = new Map<string, Finding>();

  /** The finding, which is made if it is new; said once, however often it is met. */
  add(file: string, offset: number | null, message: string): Finding {
    const key = `${file} ${offset} ${message}`;
    let finding = this.#all.get(key);
    if (!finding) {
      finding = { file, offset, message, snapshots: [] };
      this.#all.set(key, finding);
    }
    return finding;
  }

  problems(): Problem[] {
    return Array.from(this.#all.values(), ({ file, offset, message, snapshots }) => ({
      file,
      offset,
      snapshots: [...new Set(snapshots)].sort(),
      message,
    }));
  }
}

/** Names a snapshot in a finding. Snapshots are gone through one after the other, so the last one tells mostly. */
function blame(finding: Finding, snapshot: string): void {
  if (finding.snapshots.at(-1) !== snapshot) finding.snapshots.push(snapshot);
}

/** The findings that chunks of packs are lost by. */
class LostChunks {
  readonly #packs = new Map<
    number,
    { readonly whole: Finding[]; readonly some: Finding[]; readonly byChunk: Uint32Array }
  >();

  /** Offsets by file. */
  readonly #places = new Map<string, Set<number | null>>();

  /** `chunks` null: all of the pack. A chunk has one finding, the first. */
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

  /** Names the snapshot in every finding that takes a chunk from it. */
  blame(number: number, chunk: number, snapshot: string): void {
    const pack = this.#packs.get(number);
    if (!pack) return;
    for (const finding of pack.whole) blame(finding, snapshot);
    const index = pack.byChunk[chunk] ?? 0;
    if (index > 0) blame(pack.some[index - 1]!, snapshot);
  }

  has(pack: number): boolean {
    return this.#packs.has(pack);
  }

  /** Whether a pack's own finding says this, which names the snapshots already. */
  covers(error: unknown): boolean {
    if (!(error instanceof DamageError))
      return error instanceof LivesnapError && error.code === 'NEWER_FORMAT';
    return this.#places.get(error.file)?.has(error.offset) ?? false;
  }

  get any(): boolean {
    return this.#packs.size > 0;
  }
}

/** What is wrong with the file itself. That this user may not read it is nothing that repair could mend. */
const IS_OF_FILE = new Set<string>(['DAMAGED', 'NEWER_FORMAT']);

/** What rows that cannot be say has no meaning; that there are such is a problem of its own. */
const leaveOut: OnWrongRow = () => {};

/** The packs that a run reads: all, none, or those not read for longest until their bytes are the part asked for. */
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
  /** The highest number that is in use or referred to. */
  #highest = 0;

  constructor(
    readonly context: StoreContext,
    readonly readData: boolean,
  ) {}

  problems(): Problem[] {
    return this.#findings.problems();
  }

  #find(file: string, offset: number | null, message: string, snapshot?: string): Finding {
    const finding = this.#findings.add(file, offset, message);
    if (snapshot !== undefined) blame(finding, snapshot);
    return finding;
  }

  index(): void {
    const { index, dir } = this.context;
    for (const message of index.integrityProblems()) this.#find(DATABASE, null, message);
    for (const { file, why } of index.wrongRows()) this.#find(file, null, why);
    for (const { label, snapshot } of index.damagedTags())
      this.#find(DATABASE, null, `the tag ${label} is not the one that was written`, snapshot);
    for (const name of namesIn(dir, TAGS)) {
      if (!TAG_LABEL.test(name) || isTemporary(name)) continue;
      try {
        readTag(dir, name);
      } catch (error) {
        if (!(error instanceof DamageError)) throw error;
        // One that is missing was removed meanwhile.
        if (!(error instanceof MissingFileError)) this.#find(error.file, error.offset, error.why);
      }
    }
  }

  async packs(readData: CheckOptions['readData'], progress?: Progress): Promise<void> {
    const { index, write } = this.context;
    const toRead = packsToRead(this.context, readData);
    const isRead = new Set(toRead.map(({ number }) => number));
    const waiting = index.packs(leaveOut);
    const weight = (row: PackRow): number => (isRead.has(row.number) ? row.sizeBytes : row.chunks * 44);
    const totalBytes = waiting.reduce((total, row) => total + weight(row), 0);
    let doneBytes = 0;
    const lane = async (worker: number): Promise<void> => {
      for (let row = waiting.shift(); row; row = waiting.shift()) {
        this.#highest = Math.max(this.#highest, row.number);
        await this.#pack(worker, row, isRead.has(row.number));
        doneBytes += weight(row);
        progress?.(doneBytes, totalBytes);
      }
    };
    await Promise.all(Array.from({ length: pageWorkerCount }, (_, i) => lane(i)));
    if (write && toRead.length > 0) index.noteRead(toRead);
  }

  async #pack(worker: number, row: PackRow, readData: boolean): Promise<void> {
    const { index } = this.context;
    const { number } = row;
    const problems = await this.#verify(worker, row, readData);
    if (problems.length === 0) return;
    const generation = index.generationOf(number);
    if (generation === undefined) return; // gc has taken it meanwhile
    if (generation !== row.generation) {
      await this.#pack(worker, index.packs(leaveOut).find((pack) => pack.number === number) ?? row, readData);
      return;
    }
    for (const { chunks, file, offset, message } of problems)
      this.#lost.add(number, chunks, this.#find(file, offset, message));
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
      const message = `the index says something else of ${file} than the pack itself`;
      return [...problems, { file: DATABASE, offset: null, message, chunks: [] }];
    } catch (error) {
      if (error instanceof LivesnapError && error.code === 'NEWER_FORMAT')
        return [{ file, offset: 8, message: error.message, chunks: null }];
      throw error;
    }
  }

  snapshots(): void {
    const { index } = this.context;
    const packs = this.context.packSet();
    const goodBlocks = new ChunkSet();
    try {
      for (const id of index.ids(leaveOut)) this.#snapshot(packs, goodBlocks, id);
    } finally {
      packs.close();
    }
  }

  #snapshot(packs: PackSet, goodBlocks: ChunkSet, id: string): void {
    const { context } = this;
    const failed = (error: unknown): void => {
      if (!(error instanceof LivesnapError) || !IS_OF_FILE.has(error.code)) throw error;
      if (!context.index.has(id)) return; // removed meanwhile
      const damage = error instanceof DamageError ? error : null;
      this.#find(damage?.file ?? snapshotFile(id), damage?.offset ?? null, damage?.why ?? error.message, id);
    };
    let file: ReturnType<typeof readSnapshotFile>;
    try {
      file = readSnapshotFile(context.dir, id);
    } catch (error) {
      failed(error);
      return;
    }
    const listed = context.index.row(id, leaveOut);
    if (listed && JSON.stringify(snapshotRow(file)) !== JSON.stringify(listed))
      this.#find(DATABASE, null, `the index says something else of snapshot ${id} than its file`, id);
    const { regions } = file.description;
    for (const entry of file.blocks) {
      const { places, fingerprints } = entry;
      this.#noteNumber(places.pack);
      this.#noteNumber(fingerprints.pack);
      this.#lost.blame(places.pack, places.chunk, id);
      this.#lost.blame(fingerprints.pack, fingerprints.chunk, id);
      // A block that was found good for another snapshot is good. It is read again where chunks are lost, and where this
      // region ends within it.
      const pages = pagesOfBlock(regions, entry);
      if (goodBlocks.has(places.pack, places.chunk) && !this.#lost.any && pages === BLOCK_PAGES) continue;
      try {
        const block = readBlock(context.ops, packs, entry, pages);
        this.#requireChunks(packs, block);
        for (let page = 0; this.#lost.any && page < BLOCK_PAGES; page++)
          if (!block.isZero(page)) this.#lost.blame(block.places[2 * page]!, block.places[2 * page + 1]!, id);
        goodBlocks.add(places.pack, places.chunk);
      } catch (error) {
        // What a pack's own finding says is not said again for each block.
        if (!this.#lost.covers(error)) failed(error);
      }
    }
  }

  /** Every place of a block is in a pack that can be read. A pack that cannot has its own finding. */
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
        throw new DamageError(pack.file, pack.footer.trailerOffset, `there is no chunk ${chunk}`);
      if (this.readData && !this.#isListed(pack, position, block, page))
        throw new DamageError(
          pack.file,
          packs.offsetOf(number, chunk),
          `chunk ${chunk} is not the page that was saved`,
        );
    }
  }

  /** Whether a pack lists the page that the block means. One whose list cannot be read has its own finding. */
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

  /** A number given twice would make a reference to a pack that is gone find another one. */
  numbers(): void {
    const { index } = this.context;
    for (const { number } of index.segments(leaveOut)) this.#highest = Math.max(this.#highest, number);
    const next = index.nextNumber(leaveOut);
    if (next > 0 && next <= this.#highest)
      this.#find(DATABASE, null, `the next pack would get a number that is in use`);
  }

  /** Every byte of every segment: a wrong entry hides a chunk from saves. */
  async segments(): Promise<void> {
    const { index, dir } = this.context;
    for (const row of index.segments(leaveOut)) {
      const problem = await pageWorker(0).do('verifySegment', { dir, row });
      if (problem && index.hasSegment(row.number)) this.#find(problem.file, problem.offset, problem.message);
    }
    // There may be entries of chunks that a gc, cut short, took away; read at one moment, as a save may commit.
    const { listed, chunks } = index.coverage();
    if (listed < chunks)
      this.#find(DATABASE, null, `the segments list ${listed} chunks, the packs have ${chunks}`);
  }
}
