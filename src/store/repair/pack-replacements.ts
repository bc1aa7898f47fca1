/**
 * Replaces damaged packs by their next generations (docs/format.md, "Repair").
 *
 * Invariants:
 * - A next generation is complete and fsynced before the new index lists it.
 * - The files that it replaces stay in packs/ until the new index is in place, so gc never takes the only good
 *   generation for an orphan.
 * - Of the files that one pack loses, the lowest generation is moved to quarantine/ last. An interrupted repair then
 *   still finds all of them.
 */

import { formatCount } from '../../format.js';
import { nullIfDamaged } from '../disk/damage.js';
import {
  at,
  fsyncDirectory,
  HIGHEST_NUMBER,
  PACKS,
  packFile,
  QUARANTINE,
  removeIfThere,
} from '../disk/layout.js';
import { FrameFlag, type PackName } from '../pack/pack-format.js';
import { PackReader } from '../pack/pack-reader.js';
import type { ChunkSet } from '../snapshot/chunk-set.js';
import { Healer } from './healer.js';
import { chunksOf, fileOf, type PacksUnderRepair } from './packs-under-repair.js';
import { quarantine, quarantinedGenerations } from './quarantine.js';
import type { RepairReport } from './report.js';
import type { Heal, Salvage, SalvageResult } from './salvage.js';

/**
 * gc and repair never rewrite a pack this often. A higher generation is read like any other, but the next one is
 * counted from those up to here, so generations cannot run out.
 */
const HIGHEST_ORDINARY_GENERATION = 999_999;

interface Replacement {
  /** New files; none where a generation on disk is good enough or where nothing is left. */
  readonly made: readonly PackName[];
  /** Files to be moved to quarantine/, lowest generation first. */
  readonly outdated: readonly PackName[];
}

export class PackReplacements {
  readonly #byNumber = new Map<number, Replacement>();
  #quarantined: ReadonlyMap<number, readonly number[]> | null = null;
  #healedChunks = 0;

  constructor(
    readonly packs: PacksUnderRepair,
    readonly report: RepairReport,
  ) {}

  get healedChunks(): number {
    return this.#healedChunks;
  }

  /** Writes the next generation of each damaged pack, where none on disk is good enough. */
  replaceDamaged(needed: ChunkSet): void {
    const { dir, ops, listed, damaged } = this.packs;
    const healer = new Healer(ops, dir, listed, damaged);
    try {
      // By number: Workers found them in any order.
      for (const number of [...damaged.keys()].sort((a, b) => a - b))
        this.#replaceDamaged(damaged.get(number)!, chunksOf(needed, number), healer);
    } finally {
      healer.close();
      this.packs.close();
    }
    fsyncDirectory(at(dir, PACKS));
  }

  #replaceDamaged(salvage: Salvage, needed: readonly number[], { heal }: Healer): void {
    const { number } = salvage;
    const { listed } = this.packs;
    // It may be of a save that did not commit, so it is left to gc.
    if (!salvage.wasSealed && needed.length === 0) return;
    const [lowest, ...others] = salvage.names as [PackName, ...PackName[]];
    const moved = `${fileOf(lowest)} was damaged and moved to ${QUARANTINE}/`;
    if (salvage.isEmpty && needed.length === 0) {
      this.#byNumber.set(number, { made: [], outdated: salvage.names });
      this.report.add(`${moved}: nothing in it can be read, and no snapshot needs it.`);
      return;
    }
    if (others.length === 0 && this.#isMarkedOnly(lowest, salvage, heal)) {
      listed.set(number, { ...lowest, ...this.#sizesOf(lowest) });
      return;
    }
    const enough = others.find((name) => this.#isEnough(name, salvage, heal));
    if (enough) {
      listed.set(number, { ...enough, ...this.#sizesOf(enough) });
      this.#byNumber.set(number, { made: [], outdated: salvage.names.filter((name) => name !== enough) });
      this.report.add(`${moved}: ${fileOf(enough)} has every chunk of it that can be recovered.`);
      return;
    }
    const result = this.#replace(salvage, needed, heal);
    this.#healedChunks += result.healedChunks;
    this.report.add(`${moved}: ${outcomeOf(result)}.`);
  }

  /** Lists chunks as lost that snapshots refer to and that no pack lists, so that gc can tell that they are lost. */
  listMissing(needed: ChunkSet): void {
    const { dir, ops, listed } = this.packs;
    for (const number of needed.packs()) {
      if (number > HIGHEST_NUMBER) continue; // Such a page is lost, and the index cannot list a pack for it.
      const row = listed.get(number);
      const reader = row && new PackReader(ops, dir, row);
      const isMissing = (chunk: number): boolean => !reader || reader.positionOf(chunk) < 0;
      const missing = chunksOf(needed, number).filter(isMissing);
      reader?.close();
      if (missing.length === 0) continue;
      const [lowest] = this.packs.generations(number);
      const isReported = this.#byNumber.has(number);
      const { lostChunks } = this.#replace(this.packs.salvage(number), missing, () => null);
      const areLost = `${formatCount(lostChunks, 'chunk')} ${lostChunks === 1 ? 'is' : 'are'} lost`;
      const areNeeded = `${formatCount(missing.length, 'chunk')} that snapshots need`;
      if (!lowest) this.report.add(`${packFile(number, 0)} is missing: ${areLost}.`);
      else if (!isReported)
        this.report.add(`${fileOf(lowest)} lacks ${areNeeded} and was moved to ${QUARANTINE}/: ${areLost}.`);
    }
    fsyncDirectory(at(dir, PACKS));
  }

  /** Call when the new index is in place. */
  setOutdatedAside(): void {
    const { dir } = this.packs;
    for (const { outdated } of this.#byNumber.values())
      for (const name of [...outdated].reverse()) {
        if (outdated.length > 1 && name === outdated[0]) fsyncDirectory(at(dir, PACKS));
        quarantine(dir, fileOf(name));
      }
    fsyncDirectory(at(dir, PACKS));
  }

  /** Removes the new files after a failure. Otherwise each attempt on a full disk would leave some more. */
  removeMade(): void {
    for (const name of [...this.#byNumber.values()].flatMap(({ made }) => made))
      try {
        removeIfThere(at(this.packs.dir, fileOf(name)));
      } catch {
        // The next repair uses it. The first error is the one to report.
      }
  }

  /** Writes a generation of a pack that replaces all that are on disk. */
  #replace(salvage: Salvage, needed: readonly number[], heal: Heal): SalvageResult {
    const { number } = salvage;
    const outdated = this.packs.generations(number);
    const result = salvage.write(this.#nextGeneration(number), needed, heal);
    this.#byNumber.set(number, {
      made: [...(this.#byNumber.get(number)?.made ?? []), result.pack],
      outdated,
    });
    this.packs.addGeneration(result.pack);
    return result;
  }

  /** Higher than any in quarantine/, so a file that comes back from there or from a backup is the lowest and counts. */
  #nextGeneration(number: number): number {
    this.#quarantined ??= quarantinedGenerations(this.packs.dir);
    const taken = new Set(this.#quarantined.get(number));
    for (const { generation } of this.packs.generations(number)) taken.add(generation);
    let generation = 1;
    for (const other of taken)
      if (other <= HIGHEST_ORDINARY_GENERATION) generation = Math.max(generation, other + 1);
    while (taken.has(generation)) generation++;
    return generation;
  }

  #sizesOf(name: PackName): { chunks: number; sizeBytes: number } {
    const reader = new PackReader(this.packs.ops, this.packs.dir, name);
    reader.close();
    return { chunks: reader.numbers.length, sizeBytes: reader.sizeBytes };
  }

  /** Whether the only damage of a file, if any, is what an earlier repair marked as lost and cannot be healed now. */
  #isMarkedOnly(name: PackName, salvage: Salvage, heal: Heal): boolean {
    const reader = nullIfDamaged(() => new PackReader(this.packs.ops, this.packs.dir, name));
    if (!reader) return false;
    try {
      if (!nullIfDamaged(() => reader.readIdentities())) return false;
      const { lost } = salvage;
      const identities = salvage.identities();
      const canHeal = (number: number): boolean => {
        const identity = identities.of(number);
        return identity !== null && heal(identity) !== null;
      };
      const marked = [...reader.frames].filter(({ flags }) => (flags & FrameFlag.lost) !== 0);
      const markedChunks = marked.reduce((total, { chunks }) => total + chunks, 0);
      return markedChunks === lost.length && !lost.some(canHeal);
    } finally {
      reader.close();
    }
  }

  /** Whether a generation, written by an interrupted repair, has everything that could be written now. */
  #isEnough(name: PackName, all: Salvage, heal: Heal): boolean {
    const own = this.packs.salvage(name.number, [name]);
    return own.hasAllOf(all) && this.#isMarkedOnly(name, own, heal);
  }
}

/** "3 of its 120 chunks are lost, 5 were healed". */
function outcomeOf({ pack: { chunks }, lostChunks, healedChunks }: SalvageResult): string {
  const lost = lostChunks === 0 ? 'none' : formatCount(lostChunks);
  const areLost = `${lost} of its ${formatCount(chunks, 'chunk')} ${lostChunks < 2 ? 'is' : 'are'} lost`;
  if (healedChunks === 0) return areLost;
  return `${areLost}, ${formatCount(healedChunks)} ${healedChunks === 1 ? 'was' : 'were'} healed`;
}
