/**
 * repair: makes the index anew from packs/, snapshots/ and tags/, which are then the truth, sets damage aside and heals
 * what can be healed (docs/format.md, "Repair").
 *
 * Invariants: the new index is complete and fsynced under another name before it takes the old one's place; a damaged
 * pack is moved to quarantine/ when its next generation is complete and the index lists that, so that between any two
 * steps whatever else uses the store, gc included, takes away nothing that is needed; nothing that is not understood is
 * removed. Cut short anywhere and begun again, it comes to the same end.
 */
import { lstatSync, statSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import { type PageOps, pageOps, withFingerprintBits } from '../../native/pages.js';
import { DamageError } from '../disk/damage.js';
import {
  at,
  fillReserve,
  fsyncDirectory,
  HIGHEST_NUMBER,
  INDEX_LOCK,
  LOOKS_LIKE_ID,
  makeMissingFolders,
  namesIn,
  PACKS,
  packFile,
  parsePackName,
  QUARANTINE,
  RESERVE,
  removeIfThere,
  SEGMENTS,
  SNAPSHOT_ID,
  SNAPSHOTS,
  storeError,
  TAG_LABEL,
  TAGS,
  tagFile,
} from '../disk/layout.js';
import { readSmallFile } from '../disk/store-file.js';
import { StoreLock } from '../disk/store-lock.js';
import { rebuildSegments } from '../gc/segment-merge.js';
import { Index, type PackRow, snapshotRow } from '../index/index-database.js';
import { notAStore } from '../index/index-files.js';
import {
  finishReplacement,
  NEW_DATABASE,
  removeReplaced,
  removeUnfinished,
  replaceIndex,
} from '../index/index-replacement.js';
import { FrameFlag, type PackName } from '../pack/pack-format.js';
import { PackReader } from '../pack/pack-reader.js';
import { hasSegmentHeader, parseSegmentName, segmentFile } from '../segment/segment-file.js';
import { BlockList, type Place } from '../snapshot/block-list.js';
import type { ChunkSet } from '../snapshot/chunk-set.js';
import { readSnapshotFile, type SnapshotFile, snapshotFile } from '../snapshot/snapshot-file.js';
import { Usage } from '../snapshot/usage.js';
import type { LostRange, Progress, RepairResult } from '../types.js';
import { pageWorker, pageWorkerCount, releasePageWorkers, usePageWorkers } from '../worker/page-pool.js';
import { Healer, PacksUnderRepair } from './healer.js';
import { lossesOf } from './losses.js';
import { BELIEVED_BY_NAME, lastQuarantined, quarantine, quarantinedGenerations } from './quarantine.js';
import { type Heal, Salvage, SalvageFiles, type SalvageResult } from './salvage.js';

/**
 * No pack is rewritten so often. What has a higher generation is read like any other, and what repair writes comes after
 * those up to here: so whatever names there are, it never runs out of generations, and believes what it wrote.
 */
const HIGHEST_ORDINARY_GENERATION = 999_999;

/** Errors: NOT_A_STORE, NEWER_FORMAT, STORE_BUSY, READ_ONLY, NO_SPACE. */
export async function repairStore(
  dir: string,
  { fingerprintBits = 64 }: { fingerprintBits?: number },
  progress?: Progress,
): Promise<RepairResult> {
  for (const folder of [PACKS, SNAPSHOTS, TAGS]) {
    const found = statSync(at(dir, folder), { throwIfNoEntry: false });
    if (found ? !found.isDirectory() : folder === PACKS) throw notAStore(dir);
  }
  const locks: StoreLock[] = [];
  usePageWorkers();
  const repair = new Repair(dir, withFingerprintBits(pageOps, fingerprintBits), fingerprintBits);
  try {
    finishReplacement(dir);
    const before = knownSnapshots(dir, repair.actions);
    locks.push(await StoreLock.acquire(dir, 'exclusive'));
    locks.push(await StoreLock.acquire(dir, 'exclusive', INDEX_LOCK));
    removeReplaced(dir);
    if (makeMissingFolders(dir)) fsyncDirectory(dir);
    return await repair.run(before, progress);
  } catch (error) {
    throw repairError(dir, error);
  } finally {
    repair.close();
    for (const lock of locks) lock.release();
    releasePageWorkers();
  }
}

/** What a repair lacks room for, rm and gc cannot give it: they need the index. */
function repairError(dir: string, error: unknown): unknown {
  const known = storeError(dir, error);
  if (!(known instanceof LivesnapError && known.code === 'NO_SPACE')) return known;
  return new LivesnapError('NO_SPACE', known.message, {
    hint: `Free space elsewhere on this file system, or move ${at(dir, QUARANTINE)} to another one, and run livesnap repair again.`,
    cause: error,
  });
}

class Repair {
  readonly actions: string[] = [];
  readonly #packs = new Map<number, PackRow>();
  readonly #damaged = new Map<number, Salvage>();
  /** All generations of each pack that are in packs/, the lowest first. */
  readonly #onDisk = new Map<number, PackName[]>();
  /** By pack, what is to be set aside (all that there was, the lowest first) once there is better: `made`, if anything. */
  readonly #replacements = new Map<number, { made: readonly PackName[]; outdated: readonly PackName[] }>();
  readonly #salvageFiles: SalvageFiles;
  #healer: Healer | null = null;
  #highest = 0;
  #healedChunks = 0;

  constructor(
    readonly dir: string,
    readonly ops: PageOps,
    readonly fingerprintBits: number,
  ) {
    this.#salvageFiles = new SalvageFiles(ops, dir);
  }

  async run(before: ReadonlySet<string> | null, progress?: Progress): Promise<RepairResult> {
    const { actions } = this;
    this.#setStrangersAside();
    await this.#readPacks(progress);
    const files = this.#readSnapshots(before);
    let lost: LostRange[];
    let segments: ReadonlySet<string>;
    try {
      this.#salvage(this.#markNeeded(files));
      this.#listMissing(this.#markNeeded(files));
      const tags = this.#readTags(new Set(files.map(({ description }) => description.id)));
      lost = this.#losses(files, tags);
      segments = await this.#rebuildIndex(files, tags);
    } catch (error) {
      this.#removeMade();
      throw error;
    }
    this.#setAside();
    this.#removeOtherSegments(segments);
    fillReserve(this.dir);
    return { actions, healedChunks: this.#healedChunks, lost };
  }

  /** Names of the store's that are directories, links, pipes: nothing of the store's, but perhaps somebody's. */
  #setStrangersAside(): void {
    const isOurs: Record<string, (name: string) => boolean> = {
      [PACKS]: (name) => parsePackName(name) !== null,
      [SNAPSHOTS]: (name) => SNAPSHOT_ID.test(name),
      [TAGS]: (name) => TAG_LABEL.test(name),
      [SEGMENTS]: (name) => parseSegmentName(name) !== null,
    };
    for (const [folder, ours] of Object.entries(isOurs))
      for (const name of namesIn(this.dir, folder).filter(ours)) {
        const file = `${folder}/${name}`;
        if (!lstatSync(at(this.dir, file)).isFile()) this.#quarantine(file, 'it is not a plain file');
      }
  }

  #quarantine(file: string, why: string): void {
    quarantine(this.dir, file);
    this.actions.push(`${file} was moved to ${QUARANTINE}/: ${why}.`);
  }

  /** Reads every byte of every pack, and of those with damage what can be salvaged. */
  async #readPacks(progress?: Progress): Promise<void> {
    const names = namesIn(this.dir, PACKS)
      .map(parsePackName)
      .filter((name) => name !== null)
      .filter((name) => {
        if (name.number <= HIGHEST_NUMBER) return true;
        this.#quarantine(packFile(name.number, name.generation), 'no pack comes to such a number');
        return false;
      })
      .sort((a, b) => a.number - b.number || byGeneration(a, b));
    const byNumber = this.#onDisk;
    for (const name of names) {
      const known = byNumber.get(name.number);
      if (known) known.push(name);
      else byNumber.set(name.number, [name]);
    }
    const waiting = [...byNumber.values()].map((names) => ({ names, bytes: this.#sizeOf(names[0]!) }));
    const totalBytes = waiting.reduce((total, { bytes }) => total + bytes, 0);
    let doneBytes = 0;
    let next = 0;
    const lane = async (worker: number): Promise<void> => {
      for (let pack = waiting[next++]; pack; pack = waiting[next++]) {
        await this.#readPack(worker, pack.names);
        doneBytes += pack.bytes;
        progress?.(doneBytes, totalBytes);
      }
    };
    // The locks are let go of when this fails: not before the other lane has come to its end, too.
    const lanes = await Promise.allSettled(Array.from({ length: pageWorkerCount }, (_, i) => lane(i)));
    for (const outcome of lanes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  #sizeOf(name: PackName): number {
    return statSync(at(this.dir, fileOf(name))).size;
  }

  /** The lowest generation counts; the others are of gcs that did not come to their end, or of an earlier repair. */
  async #readPack(worker: number, names: readonly PackName[]): Promise<void> {
    const [lowest] = names as [PackName];
    const { problems, listed } = await pageWorker(worker).do('verifyPack', {
      dir: this.dir,
      pack: lowest,
      fingerprintBits: this.fingerprintBits,
      readData: true,
    });
    const { number } = lowest;
    if (listed && listed.chunks > 0 && problems.length === 0) {
      this.#packs.set(number, { ...lowest, ...listed });
    } else {
      const salvage = new Salvage(this.#salvageFiles, number, names);
      // Trailers and frames are bound to the number.
      if (number > BELIEVED_BY_NAME && !salvage.wasSealed && salvage.isEmpty) {
        for (const name of names)
          this.#quarantine(packFile(number, name.generation), 'nothing in it shows that it is this pack');
        this.#onDisk.delete(number);
        return;
      }
      this.#damaged.set(number, salvage);
    }
    this.#highest = Math.max(this.#highest, number);
  }

  /** The snapshots whose files are whole; the others are set aside. */
  #readSnapshots(before: ReadonlySet<string> | null): SnapshotFile[] {
    const { dir, actions } = this;
    const files: SnapshotFile[] = [];
    for (const id of namesIn(dir, SNAPSHOTS).sort()) {
      if (!SNAPSHOT_ID.test(id)) continue;
      try {
        const file = readSnapshotFile(dir, id);
        for (const { places, fingerprints } of file.blocks)
          if (isBeyond(places) || isBeyond(fingerprints))
            throw new DamageError(
              snapshotFile(id),
              null,
              'it refers to a pack of a number that none comes to',
            );
        files.push(withoutBulk(file));
        if (before && !before.has(id))
          actions.push(
            `Snapshot ${id} was not in the index: an rm or a save that was cut short may have left it.`,
          );
      } catch (error) {
        if (!(error instanceof DamageError)) throw error;
        this.#quarantine(error.file, error.why);
      }
    }
    return files;
  }

  #markNeeded(files: readonly SnapshotFile[]): ChunkSet {
    const set = new PacksUnderRepair(this.ops, this.dir, this.#packs, this.#damaged);
    const usage = new Usage(set);
    try {
      for (const file of files) usage.addSnapshot(file, { onlyReadable: true });
    } finally {
      set.close();
    }
    for (const number of usage.all.packs())
      if (number <= HIGHEST_NUMBER) this.#highest = Math.max(this.#highest, number);
    return usage.all;
  }

  /** Writes the next generation of each damaged pack. */
  #salvage(needed: ChunkSet): void {
    this.#healer = new Healer(this.ops, this.dir, this.#packs, this.#damaged);
    const { heal } = this.#healer;
    for (const [number, salvage] of this.#damaged) {
      // One that was never sealed and is not needed is of a save that did not commit, for all that is known: gc's.
      if (!salvage.wasSealed && needed.count(number) === 0) continue;
      const [lowest, ...others] = salvage.names as [PackName, ...PackName[]];
      if (salvage.isEmpty && needed.count(number) === 0) {
        this.#replacements.set(number, { made: [], outdated: salvage.names });
        this.actions.push(
          `${packFile(number, lowest.generation)} was damaged and moved to ${QUARANTINE}/: nothing in it can be read, ` +
            'and no snapshot needs it.',
        );
        continue;
      }
      if (others.length === 0 && this.#isMarkedOnly(lowest, salvage, heal)) {
        this.#packs.set(number, { ...lowest, ...this.#listed(lowest) });
        continue;
      }
      const made = others.find((name) => this.#isEnough(name, salvage, heal));
      if (made) {
        this.#packs.set(number, { ...made, ...this.#listed(made) });
        this.#replacements.set(number, { made: [], outdated: salvage.names.filter((name) => name !== made) });
        this.actions.push(
          `${packFile(number, lowest.generation)} was damaged and moved to ${QUARANTINE}/: ` +
            `${packFile(number, made.generation)} has all that can be had of it.`,
        );
        continue;
      }
      const { pack, healedChunks, lostChunks } = this.#replace(salvage, bitsOf(needed, number), heal);
      this.#healedChunks += healedChunks;
      this.actions.push(
        `${packFile(number, lowest.generation)} was damaged and moved to ${QUARANTINE}/: of its ${pack.chunks} ` +
          `chunks ${lostChunks} are lost, ${healedChunks} were healed.`,
      );
    }
    this.close();
    fsyncDirectory(at(this.dir, PACKS));
  }

  #listed(name: PackName): { chunks: number; sizeBytes: number } {
    const reader = new PackReader(this.ops, this.dir, name);
    reader.close();
    return { chunks: reader.numbers.length, sizeBytes: reader.sizeBytes };
  }

  /** Whether all that is wrong with a pack, if anything, are the marks of an earlier repair, and nothing of it can be healed now. */
  #isMarkedOnly(name: PackName, salvage: Salvage, heal: Heal): boolean {
    let reader: PackReader;
    try {
      reader = new PackReader(this.ops, this.dir, name);
    } catch (error) {
      if (error instanceof DamageError) return false;
      throw error;
    }
    try {
      reader.readIdentities();
      const { lost } = salvage;
      const identities = salvage.identities();
      const canHeal = (number: number): boolean => {
        const identity = identities.of(number);
        return identity !== null && heal(identity.digest) !== null;
      };
      const marked = [...reader.frames].filter(({ flags }) => (flags & FrameFlag.lost) !== 0);
      const markedChunks = marked.reduce((total, { chunks }) => total + chunks, 0);
      return markedChunks === lost.length && !lost.some(canHeal);
    } catch (error) {
      if (error instanceof DamageError) return false;
      throw error;
    } finally {
      reader.close();
    }
  }

  /** Whether a generation, as an earlier repair made it that was cut short, is all that could be written now. */
  #isEnough(name: PackName, all: Salvage, heal: Heal): boolean {
    const own = new Salvage(this.#salvageFiles, name.number, [name]);
    return own.hasAllOf(all) && this.#isMarkedOnly(name, own, heal);
  }

  /** Chunks that snapshots refer to and that no pack lists are listed as lost, so that gc knows where it stands. */
  #listMissing(needed: ChunkSet): void {
    for (const number of needed.packs()) {
      if (number > HIGHEST_NUMBER) continue; // such a page is lost, and no pack can be listed for it
      const row = this.#packs.get(number);
      const reader = row && new PackReader(this.ops, this.dir, row);
      const isMissing = (chunk: number): boolean => !reader || reader.positionOf(chunk) < 0;
      const missing = bitsOf(needed, number).filter(isMissing);
      reader?.close();
      if (missing.length === 0) continue;
      const [lowest] = this.#onDisk.get(number) ?? [];
      const isNews = !this.#replacements.has(number);
      const salvage = new Salvage(this.#salvageFiles, number, this.#onDisk.get(number) ?? []);
      const { lostChunks } = this.#replace(salvage, missing, () => null);
      if (!lowest)
        this.actions.push(
          `${packFile(number, 0)} is missing: the ${lostChunks} chunks that are needed of it are lost.`,
        );
      else if (isNews)
        this.actions.push(
          `${fileOf(lowest)} lacks ${missing.length} chunks that are needed and was moved to ${QUARANTINE}/: ` +
            `${lostChunks} are lost.`,
        );
    }
    fsyncDirectory(at(this.dir, PACKS));
  }

  /** Writes a generation of a pack that is to take the place of all that are on disk. */
  #replace(salvage: Salvage, needed: readonly number[], heal: Heal): SalvageResult {
    const { number } = salvage;
    const outdated = this.#onDisk.get(number) ?? [];
    const result = salvage.write(this.#freshGeneration(number), needed, heal);
    const made = [...(this.#replacements.get(number)?.made ?? []), result.pack];
    this.#replacements.set(number, { made, outdated });
    this.#onDisk.set(number, [...outdated, result.pack].sort(byGeneration));
    this.#packs.set(number, result.pack);
    return result;
  }

  /** A pack that comes back from a backup has a lower one, and counts again. */
  #freshGeneration(number: number): number {
    this.#quarantined ??= quarantinedGenerations(this.dir);
    const taken = new Set(this.#quarantined.get(number));
    for (const { generation } of this.#onDisk.get(number) ?? []) taken.add(generation);
    let generation = 1;
    for (const other of taken)
      if (other <= HIGHEST_ORDINARY_GENERATION) generation = Math.max(generation, other + 1);
    while (taken.has(generation)) generation++;
    return generation;
  }

  #quarantined: ReadonlyMap<number, readonly number[]> | null = null;

  #readTags(snapshots: ReadonlySet<string>): { label: string; snapshot: string }[] {
    const { dir } = this;
    const tags = new Map<string, { label: string; snapshot: string }>();
    for (const label of namesIn(dir, TAGS).sort()) {
      if (LOOKS_LIKE_ID.test(label))
        this.actions.push(
          `The tag ${label} looks like an id, which may be another snapshot’s, and was left out.`,
        );
      if (!TAG_LABEL.test(label)) continue;
      try {
        const snapshot = readSmallFile(dir, tagFile(label), 64).toString('latin1').trim();
        if (snapshots.has(snapshot)) tags.set(snapshot, { label, snapshot });
        else this.actions.push(`The tag ${label} names a snapshot that is not there and was left out.`);
      } catch (error) {
        if (!(error instanceof DamageError)) throw error;
        this.#quarantine(error.file, error.why);
      }
    }
    return [...tags.values()];
  }

  /** The lowest goes last: while it is there, the next repair takes all of them into account. */
  #setAside(): void {
    for (const { outdated } of this.#replacements.values())
      for (const name of [...outdated].reverse()) {
        if (outdated.length > 1 && name === outdated[0]) fsyncDirectory(at(this.dir, PACKS));
        quarantine(this.dir, fileOf(name));
      }
    fsyncDirectory(at(this.dir, PACKS));
  }

  /** After a failure: what was made beside what it should have replaced would take room at each attempt. */
  #removeMade(): void {
    for (const name of [...this.#replacements.values()].flatMap(({ made }) => made))
      try {
        removeIfThere(at(this.dir, fileOf(name)));
      } catch {
        // The next repair takes it into account. What went wrong before is what is to be told.
      }
  }

  #losses(files: readonly SnapshotFile[], tags: readonly { label: string; snapshot: string }[]): LostRange[] {
    const set = new PacksUnderRepair(this.ops, this.dir, this.#packs, this.#damaged);
    const tagOf = new Map(tags.map(({ label, snapshot }) => [snapshot, label]));
    try {
      return files.flatMap((file) => lossesOf(this.ops, set, file, tagOf.get(file.description.id) ?? null));
    } finally {
      set.close();
    }
  }

  /** Returns the segments' files that the new index lists. */
  async #rebuildIndex(
    files: readonly SnapshotFile[],
    tags: readonly { label: string; snapshot: string }[],
  ): Promise<ReadonlySet<string>> {
    const { dir } = this;
    const nextNumber = Math.max(this.#highest, this.#lastSegment(), lastQuarantined(dir)) + 1;
    const packs = [...this.#packs.values()].sort((a, b) => a.number - b.number);
    removeIfThere(at(dir, RESERVE)); // an index, however much else there is on the disk, counts for more
    let segments: Set<string>;
    try {
      const index = Index.create(dir, NEW_DATABASE);
      try {
        index.rebuild({ snapshots: files.map(snapshotRow), tags, packs, nextNumber });
        await rebuildSegments({ dir, index }, []);
        segments = new Set(index.segments().map(({ number }) => segmentFile(number)));
        index.database.pragma('wal_checkpoint(TRUNCATE)');
      } catch (error) {
        this.#removeSegmentsFrom(nextNumber);
        throw error;
      } finally {
        index.close();
      }
      replaceIndex(dir);
    } catch (error) {
      removeUnfinished(dir);
      throw error;
    }
    this.actions.push(
      `The index was rebuilt: ${files.length} snapshots, ${tags.length} tags, ${packs.length} packs.`,
    );
    return segments;
  }

  #removeOtherSegments(listed: ReadonlySet<string>): void {
    for (const name of namesIn(this.dir, SEGMENTS))
      if (parseSegmentName(name) !== null && !listed.has(`${SEGMENTS}/${name}`))
        removeIfThere(at(this.dir, `${SEGMENTS}/${name}`));
  }

  /** Those of an index that will not be: the next attempt would make them again, under other numbers. */
  #removeSegmentsFrom(first: number): void {
    try {
      for (const name of namesIn(this.dir, SEGMENTS))
        if ((parseSegmentName(name) ?? 0) >= first) removeIfThere(at(this.dir, `${SEGMENTS}/${name}`));
    } catch {
      // The next repair, or gc, removes them. What went wrong before is what is to be told.
    }
  }

  /** The highest number of a segment's file; those there are orphans from now on. */
  #lastSegment(): number {
    const { dir } = this;
    let last = 0;
    for (const name of namesIn(dir, SEGMENTS)) {
      const number = parseSegmentName(name);
      if (number === null) continue;
      if (number <= BELIEVED_BY_NAME || (number <= HIGHEST_NUMBER && hasSegmentHeader(dir, number)))
        last = Math.max(last, number);
      else this.#quarantine(segmentFile(number), 'nothing shows that it is this segment');
    }
    return last;
  }

  close(): void {
    this.#healer?.close();
    this.#salvageFiles.close();
    this.#damaged.clear();
  }
}

const fileOf = ({ number, generation }: PackName): string => packFile(number, generation);

const byGeneration = (a: PackName, b: PackName): number => a.generation - b.generation;

/** A snapshot without what repair has no use for, which may be many megabytes. All are kept until the end. */
function withoutBulk({ description, blocks, sizeBytes }: SnapshotFile): SnapshotFile {
  return {
    description: { ...description, machine: null, host: null },
    blocks: new BlockList(Buffer.from(blocks.bytes)), // a copy: these bytes are a part of the whole file's
    state: new Uint8Array(0),
    sizeBytes,
  };
}

/** The chunk numbers of a pack that are in the set. */
function bitsOf(set: ChunkSet, pack: number): number[] {
  const bits = set.bits(pack);
  const numbers: number[] = [];
  for (let i = 0; bits && i < bits.length * 8; i++)
    if ((bits[i >>> 3]! & (1 << (i & 7))) !== 0) numbers.push(i);
  return numbers;
}

/** The ids in the index that is there; null when it cannot be read. */
function knownSnapshots(dir: string, actions: string[]): Set<string> | null {
  try {
    const index = Index.open(dir, false);
    try {
      return new Set(index.summaries().map(({ id }) => id));
    } finally {
      index.close();
    }
  } catch (error) {
    if (error instanceof LivesnapError && (error.code === 'NEWER_FORMAT' || error.code === 'STORE_BUSY'))
      throw error;
    actions.push('The index could not be read.');
    return null;
  }
}

const isBeyond = ({ pack }: Place): boolean => pack > HIGHEST_NUMBER;
