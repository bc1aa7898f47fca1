/**
 * The packs of earlier saves that a save refers to. Each is held by a shared lock on its file, which keeps gc from
 * deleting it (docs/format.md, "Locks").
 *
 * Invariant: the lock is taken before the first chunk of the pack is used and held until the save is committed or
 * aborted.
 */
import { closeSync } from 'node:fs';
import { isOutOfDescriptors, MAX_HELD_PACKS } from '../disk/descriptors.js';
import { openShared } from '../disk/file-locks.js';
import { at, lowestGeneration, packFile } from '../disk/layout.js';

/** Packs that all saves hold now. All saves of a process run on one thread. */
let heldByAllSaves = 0;

export class PackHolds {
  /** Descriptors by pack number. */
  readonly #held = new Map<number, number>();
  /** Packs that gc was deleting, or for which there was no descriptor. This save does not ask for them again. */
  readonly #refused = new Set<number>();

  /** `generations`: those that the index lists; updated when gc has written a newer one. */
  constructor(
    readonly dir: string,
    readonly generations: Map<number, number>,
  ) {}

  /** False if the pack is missing, gc has locked it, or too many are held. The caller must then not refer to it. */
  hold(number: number): boolean {
    if (this.#held.has(number)) return true;
    if (this.#refused.has(number) || heldByAllSaves >= MAX_HELD_PACKS) return false;
    try {
      if (this.#lock(number)) return true;
    } catch (error) {
      if (!isOutOfDescriptors(error)) throw error;
    }
    this.#refused.add(number);
    return false;
  }

  /** Locks the generation that is on disk. */
  #lock(number: number): boolean {
    for (let generation = this.generations.get(number); generation !== undefined; ) {
      const fd = openShared(at(this.dir, packFile(number, generation)));
      if (fd !== null) {
        this.#held.set(number, fd);
        heldByAllSaves++;
        this.generations.set(number, generation);
        return true;
      }
      const lowest = lowestGeneration(this.dir, number);
      if (lowest === null || lowest <= generation) break;
      generation = lowest;
    }
    return false;
  }

  /** Of the held packs. */
  get numbers(): IterableIterator<number> {
    return this.#held.keys();
  }

  release(): void {
    for (const fd of this.#held.values()) closeSync(fd);
    heldByAllSaves -= this.#held.size;
    this.#held.clear();
  }
}
