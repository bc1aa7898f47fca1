/**
 * In which order a save should store its new pages: by address, or by the pack that has the parent's page of that address.
 * It simulates saves of 1% of 256 MiB and counts the frames that a restore of the last one unpacks. No bytes are stored.
 *
 *     node dist/bench/page-order.js [--saves N]
 */
import { argumentsOf } from '../test/arguments.js';

const PAGES = 65536;
const FRAME_PAGES = 16;
const CHANGED = Math.ceil(PAGES / 100);
/** As in src/store/save/scattered-pages.ts. */
const FULL_PAGES = 12;
const FEW_FRAMES = 64;
const MIN_PAGES = 8;

type Random = () => number;

/** xorshift32, from 0 to below 1. */
function generator(seed: number): Random {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/** Each adds the pages of one step of a guest. */
const guests: Record<string, (random: Random, add: (page: number) => void) => void> = {
  'any page': (random, add) => add(Math.floor(random() * PAGES)),
  'nine of ten writes in 5% of the pages': (random, add) =>
    add(random() < 0.9 ? Math.floor((random() * PAGES) / 20) * 20 : Math.floor(random() * PAGES)),
  'low pages most': (random, add) => add(Math.floor(PAGES * random() ** 4)),
  'runs of eight pages': (random, add) => {
    const first = Math.floor(random() * PAGES);
    for (let i = 0; i < 8; i++) add((first + i) % PAGES);
  },
};

/** The frame of each page, and the pack of each frame: one pack a save. */
class Frames {
  readonly of = new Int32Array(PAGES);
  readonly #packs: number[] = [];

  store(pages: readonly number[], pack: number): void {
    pages.forEach((page, i) => {
      if (i % FRAME_PAGES === 0) this.#packs.push(pack);
      this.of[page] = this.#packs.length - 1;
    });
  }

  packOf = (page: number): number => this.#packs[this.of[page]!]!;

  /** The pages of the frames that have few, emptiest frames first. */
  scattered(changed: ReadonlySet<number>): number[] {
    const live = new Uint32Array(this.#packs.length);
    let frames = 0;
    for (let page = 0; page < PAGES; page++)
      if (!changed.has(page) && live[this.of[page]!]!++ === 0) frames++;
    if (frames <= FEW_FRAMES || (PAGES - changed.size) / frames >= FULL_PAGES) return [];
    const few: number[] = [];
    for (let page = 0; page < PAGES; page++)
      if (!changed.has(page) && live[this.of[page]!]! < MIN_PAGES) few.push(page);
    return few.sort((a, b) => live[this.of[a]!]! - live[this.of[b]!]! || a - b).slice(0, CHANGED >> 1);
  }

  get needed(): number {
    return new Set(this.of).size;
  }
}

const byAddress = (a: number, b: number): number => a - b;

/** Frames that the last snapshot needs, and pages that all saves have stored. */
function simulate(guest: string, saves: number, isByPack: boolean): { frames: number; stored: number } {
  const random = generator(12345);
  const frames = new Frames();
  frames.store(
    Array.from({ length: PAGES }, (_, page) => page),
    0,
  );
  const order = (a: number, b: number): number =>
    (isByPack ? frames.packOf(a) - frames.packOf(b) : 0) || byAddress(a, b);
  let stored = PAGES;
  for (let save = 1; save <= saves; save++) {
    const changed = new Set<number>();
    while (changed.size < CHANGED) guests[guest]!(random, (page) => changed.add(page));
    const fresh = [...changed].sort(order);
    const again = frames.scattered(changed).sort(order);
    frames.store(fresh, save);
    frames.store(again, save);
    stored += fresh.length + again.length;
  }
  return { frames: frames.needed, stored };
}

const { values } = argumentsOf('page-order', { options: { saves: { type: 'string', default: '400' } } });
const saves = Number(values.saves);
const least = PAGES / FRAME_PAGES;
console.log(`after ${saves} saves of 1%: frames to unpack / the least, and pages stored / one image`);
for (const guest of Object.keys(guests)) {
  const [address, pack] = [false, true].map((isByPack) => simulate(guest, saves, isByPack));
  const show = ({ frames, stored }: { frames: number; stored: number }): string =>
    `${(frames / least).toFixed(2)}, ${(stored / PAGES).toFixed(2)}`;
  console.log(`${guest.padEnd(38)} by address ${show(address!)}   by the parent's pack ${show(pack!)}`);
}
