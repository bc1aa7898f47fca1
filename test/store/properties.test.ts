/**
 * Random sequences of commands on two stores. Whatever the sequence, both stores have exactly the snapshots of the
 * model, byte by byte, also after copies between them.
 *
 * fast-check makes the sequences, and prints the seed and the shortest sequence that fails. Fingerprints of 4 bits
 * nearly all collide. Fingerprints of one length are of no use to a store with another, so a copy between such stores
 * sends every page. LIVESNAP_PROPERTY_RUNS sets the number of sequences, LIVESNAP_SEED repeats a run.
 */
import { randomInt } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { type Exported, expectExported, ModelledStore } from './modelled-store.js';
import { dropScratch, noise, scratchDir, textPages } from './scratch.js';

const seed = Number(process.env.LIVESNAP_SEED ?? randomInt(2 ** 31));
const runs = Number(process.env.LIVESNAP_PROPERTY_RUNS ?? 6);

const MAX_PAGES = 1200;
/** In a short copy, the numbers of the first message with pages and of the last message. */
const FIRST_PAGES = 9;
const LAST_MESSAGE = 15;
/** So few different pages that a save finds most of them in the store. The first one is zero. */
const KINDS = 40;
const kinds = Array.from({ length: KINDS }, (_, kind) =>
  kind === 0 ? Buffer.alloc(PAGE_BYTES) : kind % 2 ? noise(kind, 1) : textPages(kind, 1),
);

/** Which of the two stores. */
const at = fc.nat(1);
const which = fc.nat(9);
const kind = fc.nat(KINDS - 1);
const tag = fc.constantFrom('a', 'b', 'c', 'd');
const tags = fc.array(tag, { maxLength: 3 });
const someTags = fc.array(tag, { minLength: 1, maxLength: 3 });

/** The number of messages until the connection breaks. Mostly some pages have arrived by then. */
const cut = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: FIRST_PAGES, max: LAST_MESSAGE }) },
  { weight: 1, arbitrary: fc.nat(FIRST_PAGES) },
);

/** `at` is the store that the command works on, or the source of a copy. */
const command = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('save' as const),
      at,
      /** Null: a full save. `freq: n` makes one in n null. */
      parent: fc.option(which, { freq: 3 }),
      /** Null: as many as the parent has. */
      pages: fc.option(fc.integer({ min: 1, max: MAX_PAGES }), { freq: 2 }),
      writes: fc.array(fc.tuple(fc.nat(MAX_PAGES - 1), kind), { maxLength: 50 }),
      /** A second region, of which all pages are given. Empty: no second region. */
      disk: fc.array(kind, { maxLength: 12 }),
      tags,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('put' as const),
      at,
      bytes: fc.nat(30 * PAGE_BYTES),
      kind,
      tags,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('remove' as const), at, which, also: fc.option(which) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('tag' as const), at, which, tags: someTags }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('untag' as const), at, tags: someTags }) },
  /** By its first tags. */
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('remove tagged' as const), at, which, count: fc.nat(2) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('copy' as const),
      at,
      which,
      asks: fc.constantFrom('source' as const, 'destination' as const),
      cut: fc.option(cut, { freq: 2 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('export' as const), at, which }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('import' as const), at, which }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom('gc' as const, 'check' as const), at }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('repair' as const, 'reopen' as const), at }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('lose index' as const), at }) },
);

type Command = typeof command extends fc.Arbitrary<infer C> ? C : never;
type Save = Extract<Command, { do: 'save' }>;

/** Two stores, and the directories that were exported from them. */
class World {
  readonly stores: readonly [ModelledStore, ModelledStore];
  readonly #exported: Exported[] = [];

  constructor(
    readonly dir: string,
    [one, other]: readonly [number, number],
  ) {
    this.stores = [new ModelledStore(join(dir, 'one'), one), new ModelledStore(join(dir, 'other'), other)];
  }

  async run(step: Command): Promise<void> {
    const store = this.stores[step.at]!;
    const other = this.stores[1 - step.at]!;
    switch (step.do) {
      case 'save':
        return save(store, step);
      case 'put': {
        const bytes = Buffer.alloc(step.bytes);
        for (let to = 0, kind = step.kind; to < bytes.length; to += PAGE_BYTES, kind = (kind * 7 + 1) % KINDS)
          bytes.set(kinds[kind]!.subarray(0, bytes.length - to), to);
        return store.put(bytes, step.tags);
      }
      case 'remove': {
        const gone = [store.pick(step.which), step.also === null ? undefined : store.pick(step.also)];
        return store.remove(...gone.filter((kept) => kept !== undefined));
      }
      case 'tag': {
        const kept = store.pick(step.which);
        if (kept) store.addTags(kept, step.tags);
        return;
      }
      case 'untag':
        return store.removeTags(step.tags);
      case 'remove tagged': {
        const kept = store.pick(step.which);
        if (kept && kept.tags.length > 0) store.removeTagged(kept, kept.tags.slice(0, 1 + step.count));
        return;
      }
      case 'copy': {
        const kept = store.pick(step.which);
        if (!kept) return;
        if (step.cut !== null) return store.copyOverChannel(other, kept, step.asks, step.cut);
        return store.copyTo(other, kept, step.asks);
      }
      case 'export': {
        const kept = store.pick(step.which);
        if (kept)
          this.#exported.push(await store.export(kept, join(this.dir, `export-${this.#exported.length}`)));
        return;
      }
      case 'import': {
        const exported = this.#exported[step.which % Math.max(1, this.#exported.length)];
        // To this store, fingerprints of another length are damage.
        if (exported?.fingerprintBits === store.fingerprintBits) await store.import(exported);
        return;
      }
      case 'gc':
        return store.gc();
      case 'check':
        return store.check();
      case 'reopen':
        return store.reopen();
      case 'repair':
      case 'lose index':
        return store.repair({ loseIndex: step.do === 'lose index' });
    }
  }

  async runAll(steps: readonly Command[]): Promise<void> {
    for (const step of steps) {
      await this.run(step);
      for (const store of this.stores) store.expectList();
    }
    for (const store of this.stores) {
      await store.expectAll();
      await store.check();
      await store.empty();
    }
    for (const exported of this.#exported) await expectExported(exported);
  }

  close(): void {
    for (const store of this.stores) store.close();
    rmSync(this.dir, { recursive: true });
  }
}

async function save(store: ModelledStore, step: Save): Promise<void> {
  const picked = step.parent === null ? undefined : store.pick(step.parent)?.contents;
  const parent = picked?.described.kind === 'machine' ? picked : undefined;
  const before = parent?.regions['ram@0x0'];
  const pages = step.pages ?? (before ? before.length / PAGE_BYTES : 100);
  const ram = Buffer.alloc(pages * PAGE_BYTES);
  before?.copy(ram);
  const written = new Set<number>();
  for (const [page, kind] of step.writes) {
    ram.set(kinds[kind]!, (page % pages) * PAGE_BYTES);
    written.add(page % pages);
  }
  const disk = Buffer.concat(step.disk.map((kind) => kinds[kind]!));
  const regions = { 'ram@0x0': ram, ...(disk.length > 0 ? { disk } : {}) };
  const only = { 'ram@0x0': [...written].sort((a, b) => a - b), disk: step.disk.map((_, page) => page) };
  await store.save(regions, { parent: parent?.id ?? null, tags: step.tags, ...(parent ? { only } : {}) });
}

describe(`any sequence of commands on two stores (seed ${seed})`, () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const [one, other] of [
    [64, 64],
    [4, 4],
    [64, 4],
  ] as const)
    it(`keeps every snapshot as it was saved (fingerprints of ${one} and ${other} bits, ${runs} runs)`, async function () {
      this.timeout(runs * 60_000);
      const dir = scratchDir(this);
      let run = 0;
      let done = 0;
      await fc.assert(
        fc.asyncProperty(fc.array(command, { maxLength: 40, size: 'max' }), async (steps) => {
          const world = new World(join(dir, String(run++)), [one, other]);
          try {
            await world.runAll(steps);
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
