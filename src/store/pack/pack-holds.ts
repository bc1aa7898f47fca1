/**
 * The packs that a save refers to, kept from gc while it lasts: a shared lock on each file, taken before the first
 * chunk in it is used and held until the save has been committed or given up (docs/format.md, "Locks").
 */
import { closeSync } from 'node:fs';
import { isOutOfDescriptors, MAX_HELD_PACKS } from '../disk/descriptors.js';
import { openShared } from '../disk/file-locks.js';
import { at, lowestGeneration, packFile } from '../disk/layout.js';

/** Packs that saves of this thread hold now; all are of one thread. */
let heldByAll = 0;

export class PackHolds {
  readonly #held = new Map<number, number>();
  /** Packs that gc was just at, or for which there was no descriptor; this save does without them. */
  readonly #refused = new Set<number>();

  /** `generations`: those that the index lists; set right where gc has written a newer one. */
  constructor(
    readonly dir: string,
    readonly generations: Map<number, number>,
  ) {}

  /** False when the pack is gone, gc is at it, or too many are held already: then nothing in it may be used. */
  hold(number: number): boolean {
    if (this.#held.has(number)) return true;
    if (this.#refused.has(number) || heldByAll >= MAX_HELD_PACKS) return false;
    try {
      if (this.#lock(number)) return true;
    } catch (error) {
      if (!isOutOfDescriptors(error)) throw error;
    }
    this.#refused.add(number);
    return false;
  }

  #lock(number: number): boolean {
    for (let generation = this.generations.get(number); generation !== undefined; ) {
      const fd = openShared(at(this.dir, packFile(number, generation)));
      if (fd !== null) {
        this.#held.set(number, fd);
        heldByAll++;
        this.generations.set(number, generation);
        return true;
      }
      const lowest = lowestGeneration(this.dir, number);
      if (lowest === null || lowest <= generation) break;
      generation = lowest;
    }
    return false;
  }

  get numbers(): IterableIterator<number> {
    return this.#held.keys();
  }

  release(): void {
    for (const fd of this.#held.values()) closeSync(fd);
    heldByAll -= this.#held.size;
    this.#held.clear();
  }
}
