/**
 * Random histories of a machine with RAM and disks that is saved to two stores by turns. Whatever fails, is removed or
 * repaired in between, every snapshot has the bytes of its moment.
 *
 * The model has what a machine has: the bytes of each region, and for each store the pages that were written since the
 * last save there (the dirty set), with that save as the base. A save that fails leaves the dirty sets as they were. The
 * base of a disk is at first a file snapshot, which may have another size. It stays open while the machine runs.
 *
 * LIVESNAP_PROPERTY_RUNS sets the number of histories, LIVESNAP_SEED repeats a run.
 */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import { readRegion } from '../../src/native/region-reader.js';
import {
  BATCH_PAGES,
  type OpenRegion,
  PAGE_BYTES,
  type PageRun,
  type PageSource,
} from '../../src/page-stream.js';
import { Store } from '../../src/store/store.js';
import { dropScratch, load, machineMetadata, noise, scratchDir } from './scratch.js';

const seed = Number(process.env.LIVESNAP_SEED ?? randomInt(2 ** 31));
const runs = Number(process.env.LIVESNAP_PROPERTY_RUNS ?? 8);

const KINDS = 24;
const kinds = Array.from({ length: KINDS }, (_, kind) =>
  kind === 0 ? Buffer.alloc(PAGE_BYTES) : noise(kind, 1),
);
const NAMES = ['ram@0x0', 'disk0', 'disk1'] as const;
type Name = (typeof NAMES)[number];

const at = fc.nat(1);
const region = fc.constantFrom(...NAMES);

const command = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('write' as const),
      region,
      /** Page and content. Pages are taken modulo the size. */
      pages: fc.array(fc.tuple(fc.nat(2000), fc.nat(KINDS - 1)), { minLength: 1, maxLength: 30 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('save' as const),
      at,
      /** Fails after so many batches; null: it does not. */
      failsAfter: fc.option(fc.nat(6), { freq: 3 }),
      /** Which regions are announced as read in order. */
      sequential: fc.subarray([0, 1, 2]),
      /** Pages come in another order, in batches of this size. */
      shuffle: fc.boolean(),
      perBatch: fc.constantFrom(7, BATCH_PAGES),
      /** Pages of a region that come a second time. */
      again: fc.nat(20),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('remove' as const), at, which: fc.nat(9) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('gc' as const, 'check' as const), at }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('repair' as const, 'reopen' as const), at }) },
  /** The machine ends, and is restored from a snapshot: its disks are read from there. */
  { weight: 2, arbitrary: fc.record({ do: fc.constant('restore' as const), at, which: fc.nat(9) }) },
);
type Command = typeof command extends fc.Arbitrary<infer C> ? C : never;
type SaveCommand = Extract<Command, { do: 'save' }>;

type Bytes = Record<Name, Buffer>;

/** What a machine knows of a store. */
interface Known {
  store: Store;
  /** Snapshots of this store, with their bytes. */
  readonly kept: { readonly id: string; readonly bytes: Bytes; isListed: boolean }[];
  /** The base of each region; null: none. */
  base: Record<Name, { snapshot: string; region: string } | null>;
  dirty: Record<Name, Set<number>>;
  /** What the machine has open here: the base of a disk. */
  open: OpenRegion[];
}

const pagesOf = (bytes: Buffer): number => Math.ceil(bytes.length / PAGE_BYTES);
const noBases = (): Known['base'] => ({ 'ram@0x0': null, disk0: null, disk1: null });
const noPages = (): Known['dirty'] => ({ 'ram@0x0': new Set(), disk0: new Set(), disk1: new Set() });
const copyOf = (bytes: Bytes): Bytes => ({
  'ram@0x0': Buffer.from(bytes['ram@0x0']),
  disk0: Buffer.from(bytes.disk0),
  disk1: Buffer.from(bytes.disk1),
});

/** The pages of a save. */
class Source implements PageSource {
  readonly regions;
  readonly #runs: { region: number; pages: number[] }[];
  #left: number;

  constructor(
    readonly bytes: Bytes,
    pages: readonly (readonly number[])[],
    readonly sequential: readonly number[],
    { perBatch, shuffle, failsAfter, again }: SaveCommand,
  ) {
    this.regions = NAMES.map((name) => ({ name, sizeBytes: bytes[name].length }));
    this.#runs = pages.flatMap((numbers, region) => {
      const order = [...numbers];
      if (shuffle) order.sort((a, b) => ((a * 7919) % 641) - ((b * 7919) % 641));
      order.push(...numbers.slice(0, again));
      return Array.from({ length: Math.ceil(order.length / perBatch) }, (_, i) => ({
        region,
        pages: order.slice(i * perBatch, (i + 1) * perBatch),
      }));
    });
    this.#left = failsAfter ?? Number.POSITIVE_INFINITY;
  }

  async next(into: Uint8Array): Promise<PageRun | null> {
    if (this.#left-- <= 0) throw new Error('the machine is gone');
    const run = this.#runs.shift();
    if (!run) return null;
    for (const [i, page] of run.pages.entries()) {
      into.fill(0, i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
      const bytes = this.bytes[NAMES[run.region]!];
      into.set(bytes.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES), i * PAGE_BYTES);
    }
    return { region: run.region, pages: Uint32Array.from(run.pages) };
  }
}

class World {
  readonly known: Known[] = [];
  #bytes: Bytes;

  constructor(
    readonly dir: string,
    /** Sizes of the image and of disk0, which begins as the image. */
    readonly sizes: { readonly image: number; readonly disk: number },
  ) {
    this.#bytes = {
      'ram@0x0': Buffer.alloc(600 * PAGE_BYTES),
      disk0: Buffer.alloc(0),
      disk1: Buffer.alloc(0),
    };
  }

  async begin(): Promise<void> {
    const { image, disk } = this.sizes;
    const bytes = Buffer.concat(
      Array.from({ length: pagesOf(Buffer.alloc(image)) }, (_, i) => kinds[i % KINDS]!),
    );
    const file = bytes.subarray(0, image);
    this.#bytes.disk0 = Buffer.alloc(disk);
    file.copy(this.#bytes.disk0);
    this.#bytes.disk1 = Buffer.alloc(1200 * PAGE_BYTES);
    for (const name of ['one', 'other']) {
      const store = Store.open(join(this.dir, name), { write: true, create: true });
      this.known.push({ store, kept: [], base: noBases(), dirty: noPages(), open: [] });
    }
    // The image is in one store only. So a save to the other one is full.
    const [first] = this.known as [Known];
    const { id } = await first.store.put(Readable.from([file]), { tags: [], name: null });
    await this.#open(first, id, 'file');
    first.base.disk0 = { snapshot: id, region: 'file' };
    first.store.remove([id]);
  }

  async #open(known: Known, id: string, name: string): Promise<void> {
    const snapshot = await known.store.openSnapshot(id);
    known.open.push(await snapshot.openRegion(name));
    snapshot.close();
  }

  async run(step: Command): Promise<void> {
    if (step.do === 'write') {
      const bytes = this.#bytes[step.region];
      for (const [number, kind] of step.pages) {
        const page = number % pagesOf(bytes);
        kinds[kind]!.copy(bytes, page * PAGE_BYTES);
        for (const { dirty } of this.known) dirty[step.region].add(page);
      }
      return;
    }
    const known = this.known[step.at]!;
    switch (step.do) {
      case 'save':
        return this.#save(known, step);
      case 'remove': {
        const kept = this.#pick(known, step.which);
        if (!kept) return;
        known.store.remove([kept.id]);
        kept.isListed = false;
        return;
      }
      case 'gc':
        await known.store.gc({ dryRun: false });
        return;
      case 'check':
        assert.deepEqual(await known.store.check({ readData: true }), { ok: true, problems: [] });
        return;
      case 'reopen':
      case 'repair':
        return this.#reopen(known, step.do === 'repair');
      case 'restore':
        return this.#restore(known, step.which);
    }
  }

  #pick({ kept }: Known, which: number): Known['kept'][number] | undefined {
    const listed = kept.filter(({ isListed }) => isListed);
    return listed[which % Math.max(1, listed.length)];
  }

  async #reopen(known: Known, repairs: boolean): Promise<void> {
    known.store.close();
    const dir = known.store.dir;
    if (repairs) assert.deepEqual((await Store.repair(dir)).lost, []);
    known.store = Store.open(dir, { write: true });
    // Repair lists snapshots again that are removed and open.
    for (const kept of known.kept) kept.isListed = known.store.list().some(({ id }) => id === kept.id);
  }

  async #save(known: Known, step: SaveCommand): Promise<void> {
    const session = await known.store.beginSave({
      regions: NAMES.map((region) => {
        const base = known.base[region];
        return { region, bases: base ? [base] : [] };
      }),
    });
    const pages = NAMES.map((name, i) => {
      const all = Array.from({ length: pagesOf(this.#bytes[name]) }, (_, page) => page);
      return session.bases[i] === null ? all : [...known.dirty[name]].sort((a, b) => a - b);
    });
    try {
      await session.store(new Source(this.#bytes, pages, step.sequential, step));
      const { id } = await session.commit(machineMetadata());
      known.kept.push({ id, bytes: copyOf(this.#bytes), isListed: true });
      for (const name of NAMES) known.base[name] = { snapshot: id, region: name };
      known.dirty = noPages();
    } catch (error) {
      await session.abort();
      assert.ok(
        step.failsAfter !== null && (error as Error).message === 'the machine is gone',
        error as Error,
      );
    }
  }

  async #restore(known: Known, which: number): Promise<void> {
    const kept = this.#pick(known, which);
    if (!kept) return;
    for (const each of this.known) {
      for (const region of each.open.splice(0)) region.close();
      each.base = noBases();
      each.dirty = noPages();
    }
    this.#bytes = copyOf(kept.bytes);
    for (const name of ['disk0', 'disk1'] as const) {
      await this.#open(known, kept.id, name);
      const found = Buffer.alloc(kept.bytes[name].length);
      assert.equal(readRegion(known.open.at(-1)!.reader, 0, found), 0);
      assert.ok(found.equals(kept.bytes[name]), `${name} of ${kept.id} has other bytes`);
    }
    for (const name of NAMES) known.base[name] = { snapshot: kept.id, region: name };
  }

  async end(): Promise<void> {
    for (const { store, kept, open } of this.known) {
      for (const { id, bytes, isListed } of kept) {
        if (!isListed) continue;
        const found = await load(store, id);
        for (const name of NAMES)
          assert.ok(found[name]!.equals(bytes[name]), `${name} of ${id} has other bytes`);
      }
      assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
      for (const region of open.splice(0)) region.close();
      store.remove(store.list().map(({ id }) => id));
      await store.gc({ dryRun: false });
      assert.equal(store.stats().chunks, 0);
      assert.equal(store.stats().packs, 0);
    }
  }

  close(): void {
    for (const { store, open } of this.known) {
      for (const region of open) region.close();
      store.close();
    }
    rmSync(this.dir, { recursive: true });
  }
}

const sizes = fc.record({
  image: fc.constantFrom(700 * PAGE_BYTES, 700 * PAGE_BYTES + 512, 1100 * PAGE_BYTES + 3584),
  disk: fc.constantFrom(700 * PAGE_BYTES + 512, 1100 * PAGE_BYTES),
});

describe(`any history of a machine with disks and two stores (seed ${seed})`, () => {
  afterEach(function () {
    dropScratch(this);
  });

  it(`keeps every snapshot as it was saved (${runs} runs)`, async function () {
    this.timeout(runs * 60_000);
    const dir = scratchDir(this);
    let run = 0;
    let done = 0;
    await fc.assert(
      fc.asyncProperty(sizes, fc.array(command, { maxLength: 40, size: 'max' }), async (chosen, steps) => {
        const world = new World(join(dir, String(run++)), chosen);
        try {
          await world.begin();
          for (const step of steps) await world.run(step);
          await world.end();
          done += steps.length;
        } finally {
          world.close();
        }
      }),
      { seed, numRuns: runs, endOnFailure: false, interruptAfterTimeLimit: runs * 50_000 },
    );
    console.log(`        ${done} commands`);
  });
});
