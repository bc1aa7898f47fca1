/**
 * The blocks of a disk that a save still has to read as they were at its moment, while the guest runs on. The old bytes
 * of a block are set aside before the guest writes to it.
 *
 * Thread: the device thread.
 *
 * Invariants:
 * - Memory is bounded: after {@link MEMORY_BLOCKS} blocks the old bytes go to an unnamed file.
 * - If bytes cannot be set aside, the save fails. The guest's write continues.
 */
import type { BitSet } from '../../bit-set.js';
import { closeMemory, createMemory, type MemoryHandle } from '../../native/memory.js';
import type { FilePlace, MemoryRange } from './block-io.js';
import { BLOCK_BYTES } from './disk-setup.js';

/** 16 MiB. */
export const MEMORY_BLOCKS = 4096;

/** Where the old bytes of a block are. */
export type AsidePlace = { readonly range: MemoryRange } | { readonly file: FilePlace };

export interface FrozenOptions {
  readonly memoryBlocks?: number;
  /** Makes the unnamed file; throws if that is not possible. */
  readonly openFile: () => number;
  readonly closeFile: (fd: number) => void;
}

/** The bytes that one save has set aside. Its file is closed when nobody uses it any more. */
class Aside {
  readonly places = new Map<number, AsidePlace>();
  readonly #options: FrozenOptions;
  readonly #memoryBlocks: number;
  #memory: MemoryHandle | null = null;
  #fd: number | null = null;
  #used = 0;
  /** The save itself, and every operation on the file or the memory. */
  #users = 1;

  constructor(options: FrozenOptions) {
    this.#options = options;
    this.#memoryBlocks = options.memoryBlocks ?? MEMORY_BLOCKS;
  }

  retain(): void {
    this.#users++;
  }

  release(): void {
    if (--this.#users > 0) return;
    if (this.#memory !== null) closeMemory(this.#memory);
    if (this.#fd !== null) this.#options.closeFile(this.#fd);
  }

  /** Room for one block. Throws if there is none. */
  room(): AsidePlace {
    const slot = this.#used;
    if (slot < this.#memoryBlocks) {
      this.#memory ??= createMemory(this.#memoryBlocks * BLOCK_BYTES);
      this.#used++;
      return { range: { memory: this.#memory, offset: slot * BLOCK_BYTES, length: BLOCK_BYTES } };
    }
    this.#fd ??= this.#options.openFile();
    this.#used++;
    return { file: { fd: this.#fd, offset: (slot - this.#memoryBlocks) * BLOCK_BYTES } };
  }
}

/** Bytes that are about to be set aside: room for each block, and what becomes of it. End it exactly once. */
export interface SettingAside {
  readonly places: readonly AsidePlace[];
  /** `failure`: why the bytes are not in their places; null if they are. */
  end(failure: string | null): void;
}

export class FrozenBlocks {
  readonly #options: FrozenOptions;
  /** Neither read by the save nor set aside. */
  #frozen: BitSet | null = null;
  #frozenCount = 0;
  #aside: Aside | null = null;
  #failure: string | null = null;

  constructor(options: FrozenOptions) {
    this.#options = options;
  }

  /** Why the save cannot be completed; null if it can. */
  get failure(): string | null {
    return this.#failure;
  }

  /** Begins, at the moment of the save. */
  freeze(blocks: BitSet): void {
    this.thaw();
    this.#frozen = blocks;
    this.#frozenCount = blocks.count();
    this.#aside = new Aside(this.#options);
  }

  /** Ends: nothing is read any more. */
  thaw(): void {
    this.#drop();
    this.#failure = null;
  }

  /** Whether the block must be read, or set aside, before it is written. */
  has(block: number): boolean {
    return this.#frozenCount > 0 && this.#frozen!.has(block);
  }

  /** The frozen blocks from `first` to `last`. */
  within(first: number, last: number): number[] {
    const blocks: number[] = [];
    if (this.#frozenCount > 0)
      for (let block = first; block <= last; block++) if (this.#frozen!.has(block)) blocks.push(block);
    return blocks;
  }

  /** The save has read the block. */
  release(block: number): void {
    if (!this.has(block)) return;
    this.#frozen!.remove(block);
    this.#frozenCount--;
  }

  /** Where the old bytes of a block are that was set aside. */
  placeOf(block: number): AsidePlace | null {
    return this.#aside?.places.get(block) ?? null;
  }

  /** Keeps what is set aside readable until the function that it returns is called. */
  retain(): () => void {
    const aside = this.#aside;
    aside?.retain();
    return () => aside?.release();
  }

  /** Gives room for the old bytes of frozen blocks. Null: there is none, and the save fails. */
  setAside(blocks: readonly number[]): SettingAside | null {
    const aside = this.#aside!;
    let places: AsidePlace[];
    try {
      places = blocks.map(() => aside.room());
    } catch (error) {
      this.#fail((error as Error).message);
      return null;
    }
    aside.retain();
    return {
      places,
      end: (failure) => {
        // The save may have ended meanwhile, and another one may have begun.
        if (aside === this.#aside) {
          if (failure !== null) this.#fail(failure);
          else
            blocks.forEach((block, i) => {
              aside.places.set(block, places[i]!);
              this.release(block);
            });
        }
        aside.release();
      },
    };
  }

  #fail(why: string): void {
    this.#drop();
    this.#failure = why;
  }

  #drop(): void {
    this.#frozen = null;
    this.#frozenCount = 0;
    this.#aside?.release();
    this.#aside = null;
  }
}
