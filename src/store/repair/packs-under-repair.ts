/**
 * The packs of a store under repair: every byte of packs/ is read, and damaged packs are salvaged (docs/format.md,
 * "Repair").
 *
 * Invariants:
 * - Of each pack number the lowest generation on disk counts. The others are left from an interrupted gc or repair.
 * - A file whose number cannot be accepted is moved to quarantine/.
 */
import { statSync } from 'node:fs';
import { BitSet } from '../../bit-set.js';
import type { PageOps } from '../../native/pages.js';
import { DamageError } from '../disk/damage.js';
import { at, HIGHEST_NUMBER, namesIn, PACKS, packFile, parsePackName } from '../disk/layout.js';
import type { PackRow } from '../index/index-database.js';
import type { PackName } from '../pack/pack-format.js';
import { PackSet } from '../pack/pack-set.js';
import type { ChunkSet } from '../snapshot/chunk-set.js';
import type { SnapshotFile } from '../snapshot/snapshot-file.js';
import { Usage } from '../snapshot/usage.js';
import type { LostRange, Progress, Tag } from '../types.js';
import { onPageWorkers, pageWorker } from '../worker/page-pool.js';
import { lossesOf } from './losses.js';
import { MAX_NUMBER_FROM_NAME } from './quarantine.js';
import type { RepairReport } from './report.js';
import { Salvage, SalvageFiles } from './salvage.js';

export const fileOf = ({ number, generation }: PackName): string => packFile(number, generation);

const byGeneration = (a: PackName, b: PackName): number => a.generation - b.generation;

export class PacksUnderRepair {
  /** The packs that the new index will list, by number. */
  readonly listed = new Map<number, PackRow>();
  /** Damaged packs, by number. */
  readonly damaged = new Map<number, Salvage>();
  readonly #onDisk = new Map<number, readonly PackName[]>();
  readonly #salvageFiles: SalvageFiles;
  #highestNumber = 0;

  constructor(
    readonly ops: PageOps,
    readonly fingerprintBits: number,
    readonly report: RepairReport,
  ) {
    this.#salvageFiles = new SalvageFiles(ops, report.dir);
  }

  get dir(): string {
    return this.report.dir;
  }

  /** The highest number of a pack that is on disk or that a snapshot refers to. */
  get highestNumber(): number {
    return this.#highestNumber;
  }

  /** The generations of a pack that are in packs/, lowest first. */
  generations(number: number): readonly PackName[] {
    return this.#onDisk.get(number) ?? [];
  }

  addGeneration(pack: PackRow): void {
    this.#onDisk.set(pack.number, [...this.generations(pack.number), pack].sort(byGeneration));
    this.listed.set(pack.number, pack);
  }

  /** Reads every byte of every pack. */
  async read(progress?: Progress, signal?: AbortSignal): Promise<void> {
    this.#findFiles();
    const waiting = [...this.#onDisk.values()].map((names) => ({ names, bytes: this.#sizeOf(names[0]!) }));
    const totalBytes = waiting.reduce((total, { bytes }) => total + bytes, 0);
    let doneBytes = 0;
    await onPageWorkers(
      waiting,
      async (worker, { names, bytes }) => {
        await this.#readPack(worker, names);
        doneBytes += bytes;
        progress?.(doneBytes, totalBytes);
      },
      signal,
    );
  }

  #findFiles(): void {
    for (const entry of namesIn(this.dir, PACKS).sort()) {
      const name = parsePackName(entry);
      if (!name) continue;
      if (name.number > HIGHEST_NUMBER)
        this.report.quarantine(fileOf(name), 'its number is above the highest possible one');
      else this.#onDisk.set(name.number, [...this.generations(name.number), name].sort(byGeneration));
    }
  }

  #sizeOf(name: PackName): number {
    return statSync(at(this.dir, fileOf(name))).size;
  }

  async #readPack(worker: number, names: readonly PackName[]): Promise<void> {
    const [lowest] = names as [PackName];
    const { number } = lowest;
    const { problems, listed } = await pageWorker(worker).do('verifyPack', {
      dir: this.dir,
      pack: lowest,
      fingerprintBits: this.fingerprintBits,
      readData: true,
    });
    if (listed && listed.chunks > 0 && problems.length === 0) {
      this.listed.set(number, { ...lowest, ...listed });
    } else {
      const salvage = this.salvage(number, names);
      // Trailers and frames are bound to the number, so either of them proves it.
      if (number > MAX_NUMBER_FROM_NAME && !salvage.wasSealed && salvage.isEmpty) {
        for (const name of names)
          this.report.quarantine(fileOf(name), 'its contents do not show that it is this pack');
        this.#onDisk.delete(number);
        return;
      }
      this.damaged.set(number, salvage);
    }
    this.#highestNumber = Math.max(this.#highestNumber, number);
  }

  /** Surveys generations of a pack, by default all that are on disk. Errors: NEWER_FORMAT. */
  salvage(number: number, names: readonly PackName[] = this.generations(number)): Salvage {
    return new Salvage(this.#salvageFiles, number, names);
  }

  /** The chunks that snapshots refer to, as far as their manifests can be read. */
  markNeeded(files: readonly SnapshotFile[]): ChunkSet {
    const set = this.#open();
    const usage = new Usage(set);
    try {
      for (const file of files) usage.addSnapshot(file, { onlyReadable: true });
    } finally {
      set.close();
    }
    for (const number of usage.all.packs())
      if (number <= HIGHEST_NUMBER) this.#highestNumber = Math.max(this.#highestNumber, number);
    return usage.all;
  }

  /** The address ranges of the snapshots that are lost. */
  losses(files: readonly SnapshotFile[], tags: readonly Tag[]): LostRange[] {
    const set = this.#open();
    const tagsOf = new Map<string, string[]>();
    for (const { tag, id } of tags) tagsOf.set(id, [...(tagsOf.get(id) ?? []), tag]);
    try {
      return files.flatMap((file) => lossesOf(this.ops, set, file, tagsOf.get(file.description.id) ?? []));
    } finally {
      set.close();
    }
  }

  #open(): PackSet {
    return new ReadablePacks(this.ops, this.dir, this.listed, this.damaged);
  }

  /** Call when all damaged packs are replaced. */
  close(): void {
    this.#salvageFiles.close();
    this.damaged.clear();
  }
}

/** Listed packs, and of damaged ones the chunks that can be read. */
export class ReadablePacks extends PackSet {
  constructor(
    ops: PageOps,
    dir: string,
    listed: ReadonlyMap<number, PackRow>,
    readonly damaged: ReadonlyMap<number, Salvage>,
  ) {
    super(ops, dir, (number) => listed.get(number)?.generation);
  }

  override chunk(pack: number, number: number): { bytes: Uint8Array; offset: number } {
    const salvage = this.damaged.get(pack);
    if (!salvage) return super.chunk(pack, number);
    const found = salvage.read(number);
    if (!found) throw new DamageError(packFile(pack, 0), null, `chunk ${number} cannot be read`);
    return found;
  }
}

/** The numbers of a pack's chunks that are in the set, ascending. */
export const chunksOf = (set: ChunkSet, pack: number): number[] => [
  ...BitSet.from(set.bits(pack) ?? new Uint8Array(0)),
];
