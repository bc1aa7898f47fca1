/**
 * check: looks for damage and says which snapshots it touches (docs/format.md, "check").
 *
 * Without `readData` it reads the index, every snapshot's file, every manifest and every pack's lists; with it also
 * every byte of every pack, against checksum, SHA-256 and fingerprint. It changes nothing.
 */
import { statSync } from 'node:fs';
import { LivesnapError } from '../errors.js';
import type { StoreContext } from './context.js';
import { DamageError } from './damage.js';
import { BLOCK_PAGES } from './format.js';
import type { PackRow } from './index-database.js';
import { at, DATABASE, packFile, storeError } from './layout.js';
import { type ManifestBlock, readBlock } from './manifest.js';
import type { PackReader, PackSet } from './pack-reader.js';
import type { PackProblem } from './page-jobs.js';
import { pageWorker, pageWorkerCount } from './page-pool.js';
import { snapshotRow } from './repair.js';
import { readSnapshotFile, snapshotFile } from './snapshot-file.js';
import type { Problem, Progress } from './types.js';
import { ChunkSet } from './usage.js';

/** A problem while it is not yet known which snapshots it touches. */
interface Finding {
  readonly file: string;
  readonly offset: number | null;
  readonly message: string;
  readonly snapshots: Set<string>;
}

export async function checkStore(
  context: StoreContext,
  { readData }: { readData: boolean },
  progress?: Progress,
): Promise<{ ok: boolean; problems: Problem[] }> {
  const lock = await context.lock('shared');
  try {
    const findings: Finding[] = [];
    const find = (file: string, offset: number | null, message: string): Finding => {
      const finding = { file, offset, message, snapshots: new Set<string>() };
      findings.push(finding);
      return finding;
    };
    for (const message of context.index.integrityProblems()) find(DATABASE, null, message);
    const lost = await checkPacks(context, readData, find, progress);
    checkSnapshots(context, lost, find);
    await checkSegments(context, find);
    const problems = findings.map(({ file, offset, message, snapshots }) => ({
      file,
      offset,
      snapshots: [...snapshots].sort(),
      message,
    }));
    return { ok: problems.length === 0, problems };
  } catch (error) {
    throw storeError(context.dir, error);
  } finally {
    lock.release();
  }
}

type Find = (file: string, offset: number | null, message: string) => Finding;

/** The findings that a chunk of a pack is lost by. */
class LostChunks {
  readonly #byPack = new Map<number, { chunks: ReadonlySet<number> | null; finding: Finding }[]>();

  add(pack: number, chunks: readonly number[] | null, finding: Finding): void {
    const list = this.#byPack.get(pack) ?? [];
    list.push({ chunks: chunks && new Set(chunks), finding });
    this.#byPack.set(pack, list);
  }

  /** Names the snapshot in every finding that takes a chunk from it. */
  blame(pack: number, chunk: number, snapshot: string): void {
    for (const { chunks, finding } of this.#byPack.get(pack) ?? [])
      if (!chunks || chunks.has(chunk)) finding.snapshots.add(snapshot);
  }

  get any(): boolean {
    return this.#byPack.size > 0;
  }
}

async function checkPacks(
  context: StoreContext,
  readData: boolean,
  find: Find,
  progress?: Progress,
): Promise<LostChunks> {
  const lost = new LostChunks();
  const rows = context.index.packs();
  const totalBytes = rows.reduce((total, { sizeBytes }) => total + sizeBytes, 0);
  const waiting = [...rows];
  let doneBytes = 0;
  const lane = async (worker: number): Promise<void> => {
    for (let row = waiting.shift(); row; row = waiting.shift()) {
      for (const problem of await verify(context, worker, row, readData))
        lost.add(row.number, problem.chunks, find(problem.file, problem.offset, problem.message));
      doneBytes += row.sizeBytes;
      progress?.(doneBytes, totalBytes);
    }
  };
  await Promise.all(Array.from({ length: pageWorkerCount }, (_, i) => lane(i)));
  return lost;
}

async function verify(
  context: StoreContext,
  worker: number,
  row: PackRow,
  readData: boolean,
): Promise<readonly PackProblem[]> {
  const { number, generation } = row;
  const file = packFile(number, generation);
  const found = statSync(at(context.dir, file), { throwIfNoEntry: false });
  if (found && found.size !== row.sizeBytes)
    return [
      { file, offset: null, message: `the pack has ${found.size} bytes, not ${row.sizeBytes}`, chunks: null },
    ];
  try {
    const { problems } = await pageWorker(worker).do('verifyPack', {
      dir: context.dir,
      pack: { number, generation },
      fingerprintBits: context.fingerprintBits,
      readData,
    });
    return problems;
  } catch (error) {
    if (error instanceof LivesnapError && error.code === 'NEWER_FORMAT')
      return [{ file, offset: null, message: error.message, chunks: null }];
    throw error;
  }
}

function checkSnapshots(context: StoreContext, lost: LostChunks, find: Find): void {
  const packs = context.packSet();
  const goodBlocks = new ChunkSet();
  try {
    for (const { id } of context.index.summaries()) checkSnapshot(context, packs, goodBlocks, id, lost, find);
  } finally {
    packs.close();
  }
}

function checkSnapshot(
  context: StoreContext,
  packs: PackSet,
  goodBlocks: ChunkSet,
  id: string,
  lost: LostChunks,
  find: Find,
): void {
  const blame = (error: unknown): void => {
    if (!(error instanceof LivesnapError)) throw error;
    const damage = error instanceof DamageError ? error : null;
    find(
      damage?.file ?? snapshotFile(id),
      damage?.offset ?? null,
      damage?.why ?? error.message,
    ).snapshots.add(id);
  };
  let file: ReturnType<typeof readSnapshotFile>;
  try {
    file = readSnapshotFile(context.dir, id);
  } catch (error) {
    blame(error);
    return;
  }
  const row = snapshotRow(file);
  const listed = context.index.row(id);
  if (JSON.stringify(row) !== JSON.stringify(listed))
    find(DATABASE, null, `the index says something else of snapshot ${id} than its file`).snapshots.add(id);
  for (const entry of file.blocks) {
    const { pack, chunk } = entry.places;
    lost.blame(pack, chunk, id);
    lost.blame(entry.fingerprints.pack, entry.fingerprints.chunk, id);
    // A block that was found good for another snapshot is good; where chunks are lost it must be looked at again.
    if (goodBlocks.has(pack, chunk) && !lost.any) continue;
    try {
      const block = readBlock(context.ops, packs, entry);
      requireChunks(packs, block);
      for (let page = 0; page < BLOCK_PAGES; page++)
        if (!block.isZero(page)) lost.blame(block.places[2 * page]!, block.places[2 * page + 1]!, id);
      goodBlocks.add(pack, chunk);
    } catch (error) {
      blame(error);
    }
  }
}

/** Every place of a block is in a pack that can be read. A pack that cannot has its own finding. */
function requireChunks(packs: PackSet, block: ManifestBlock): void {
  for (let page = 0; page < BLOCK_PAGES; page++) {
    if (block.isZero(page)) continue;
    const number = block.places[2 * page]!;
    if (!packs.has(number)) throw new DamageError(packFile(number, 0), null, 'the pack is missing');
    let pack: PackReader;
    try {
      pack = packs.pack(number);
    } catch {
      continue;
    }
    if (pack.positionOf(block.places[2 * page + 1]!) < 0)
      throw new DamageError(
        pack.file,
        pack.footer.trailerOffset,
        `there is no chunk ${block.places[2 * page + 1]}`,
      );
  }
}

/** Every byte of every segment: a wrong entry hides a chunk from saves. */
async function checkSegments(context: StoreContext, find: Find): Promise<void> {
  for (const row of context.index.segments()) {
    const problem = await pageWorker(0).do('verifySegment', { dir: context.dir, row });
    if (problem && context.index.hasSegment(row.number)) find(problem.file, problem.offset, problem.message);
  }
}
