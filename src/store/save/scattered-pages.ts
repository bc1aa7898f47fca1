/**
 * Finds pages of a base that lie scattered over many frames, so that the save stores them together once more. A restore
 * unpacks every frame that has a page it needs. After hundreds of incremental saves, most frames have few.
 *
 * Invariants:
 * - At most half as many pages as the save has changed. So a store grows by half at most.
 * - The pages of the emptiest frames come first: they cost least for each frame that is no longer needed.
 */
import { FRAME_CHUNKS } from '../pack/pack-format.js';
import { BLOCK_PAGES } from '../snapshot/block-list.js';
import type { ManifestBlock } from '../snapshot/manifest.js';

/** A frame with fewer pages of the base than this is left behind. */
const MIN_PAGES = FRAME_CHUNKS / 2;

export interface LoadedBlock {
  readonly block: ManifestBlock;
  /** The places in the block of the base. */
  readonly basePlaces: Uint32Array;
}

/** With so many pages of each frame on average, pages are not looked for. */
const FULL_PAGES = (3 * FRAME_CHUNKS) / 4;
/** So few frames are unpacked in a few milliseconds, however empty they are. */
const FEW_FRAMES = 64;

/**
 * Counts pages by frame. Frames may share a counter: then they seem fuller, and some are left as they are. A frame is
 * taken to be 16 chunk numbers, though gc may have dropped some of them.
 */
class FrameCounts {
  readonly #counts: Uint8Array;
  readonly #shift: number;
  /** Pages, and counters that are not zero. */
  pages = 0;
  frames = 0;

  constructor(maxPages: number) {
    const bits = Math.min(22, Math.max(12, Math.ceil(Math.log2(maxPages + 1)) + 1));
    this.#counts = new Uint8Array(2 ** bits);
    this.#shift = 32 - bits;
  }

  #slot(pack: number, chunk: number): number {
    return (Math.imul(pack, 0x9e3779b1) ^ Math.imul((chunk / FRAME_CHUNKS) | 0, 0x85ebca6b)) >>> this.#shift;
  }

  add(pack: number, chunk: number): void {
    const slot = this.#slot(pack, chunk);
    const count = this.#counts[slot]!;
    this.pages++;
    if (count === 0) this.frames++;
    if (count < 255) this.#counts[slot] = count + 1;
  }

  of(pack: number, chunk: number): number {
    return this.#counts[this.#slot(pack, chunk)]!;
  }
}

/** Calls `visit` for each page that has the place of the base. Returns the number of the others that are not zero. */
function visitKept(
  blocks: ReadonlyMap<number, LoadedBlock>,
  visit: (pack: number, chunk: number, page: number) => void,
): number {
  let changed = 0;
  for (const [number, { block, basePlaces }] of blocks) {
    const { places } = block;
    for (let i = 0; i < 2 * BLOCK_PAGES; i += 2) {
      const pack = places[i]!;
      const chunk = places[i + 1]!;
      if (pack === 0) continue;
      if (pack === basePlaces[i] && chunk === basePlaces[i + 1])
        visit(pack, chunk, number * BLOCK_PAGES + i / 2);
      else changed++;
    }
  }
  return changed;
}

/** Ascending page numbers. `blocks`: by number; nearly all of those that the region has. */
export function scatteredPages(blocks: ReadonlyMap<number, LoadedBlock>): number[] {
  const counts = new FrameCounts(blocks.size * BLOCK_PAGES);
  const changed = visitKept(blocks, (pack, chunk) => counts.add(pack, chunk));
  if (counts.frames <= FEW_FRAMES || counts.pages >= counts.frames * FULL_PAGES) return [];
  const byCount: number[][] = Array.from({ length: MIN_PAGES }, () => []);
  visitKept(blocks, (pack, chunk, page) => byCount[counts.of(pack, chunk)]?.push(page));
  return byCount
    .flat()
    .slice(0, Math.floor(changed / 2))
    .sort((a, b) => a - b);
}
