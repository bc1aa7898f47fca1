/**
 * What holds whatever is done to a store, in whatever order: every snapshot that the model has is there, byte by byte.
 * Sequences are made by fast-check, which prints the seed and the shortest sequence that fails; half of the runs cut
 * fingerprints to 4 bits, so that nearly all collide. LIVESNAP_PROPERTY_RUNS and LIVESNAP_SEED make it longer, or the same again.
 */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import { PAGE_SIZE } from '../../src/page-stream.js';
import { Store } from '../../src/store/store.js';
import { dropScratch, load, noise, save, scratchDir, textPages } from './scratch.js';

const seed = Number(process.env.LIVESNAP_SEED ?? randomInt(2 ** 31));
const runs = Number(process.env.LIVESNAP_PROPERTY_RUNS ?? 8);

const MAX_PAGES = 1200;
/** So few different pages that a save meets most of them again; the first is zero. */
const KINDS = 40;
const kinds = Array.from({ length: KINDS }, (_, kind) =>
  kind === 0 ? Buffer.alloc(PAGE_SIZE) : kind % 2 ? noise(kind, 1) : textPages(kind, 1),
);

const which = fc.nat(9);
const tag = fc.constantFrom('a', 'b', 'c');
const perhapsTag = fc.option(tag, { freq: 2 });
const writes = fc.array(fc.tuple(fc.nat(MAX_PAGES - 1), fc.nat(KINDS - 1)), { maxLength: 50 });

const command = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('save' as const),
      /** Of the snapshots there are; null: full. */
      parent: fc.option(which, { freq: 3 }),
      /** Null: as the parent. */
      pages: fc.option(fc.integer({ min: 1, max: MAX_PAGES }), { freq: 1 }),
      writes,
      tag: perhapsTag,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('put' as const),
      bytes: fc.nat(30 * PAGE_SIZE),
      kind: fc.nat(KINDS - 1),
      tag: perhapsTag,
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('remove' as const), which, also: fc.option(which) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('tag' as const), which, tag }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('gc' as const, 'check' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('repair' as const, 'reopen' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('lose index' as const) }) },
);

type Command = typeof command extends fc.Arbitrary<infer C> ? C : never;

interface Kept {
  readonly id: string;
  readonly kind: 'machine' | 'file';
  readonly bytes: Buffer;
  tag: string | null;
}

class Model {
  kept: Kept[] = [];
  store: Store;

  constructor(
    readonly dir: string,
    readonly fingerprintBits: number,
  ) {
    this.store = this.open();
  }

  open(): Store {
    return Store.open(this.dir, { write: true, create: true, fingerprintBits: this.fingerprintBits });
  }

  pick(which: number): Kept | undefined {
    return this.kept[which % Math.max(1, this.kept.length)];
  }

  add(kept: Kept): void {
    if (kept.tag !== null) this.untag(kept.tag);
    this.kept.push(kept);
  }

  untag(label: string): void {
    for (const other of this.kept) if (other.tag === label) other.tag = null;
  }

  async carryOut(step: Command): Promise<void> {
    switch (step.do) {
      case 'save': {
        const picked = step.parent === null ? undefined : this.pick(step.parent);
        const parent = picked?.kind === 'machine' ? picked : undefined;
        const pages = step.pages ?? (parent ? parent.bytes.length / PAGE_SIZE : 100);
        const bytes = Buffer.alloc(pages * PAGE_SIZE);
        if (parent) bytes.set(parent.bytes.subarray(0, bytes.length));
        const written = new Set<number>();
        for (const [at, kind] of step.writes) {
          bytes.set(kinds[kind]!, (at % pages) * PAGE_SIZE);
          written.add(at % pages);
        }
        const ram = { 'ram@0x0': bytes };
        const only = parent ? { only: { 'ram@0x0': [...written].sort((a, b) => a - b) } } : {};
        const { id } = await save(this.store, ram, { parent: parent?.id ?? null, tag: step.tag, ...only });
        this.add({ id, kind: 'machine', bytes, tag: step.tag });
        return;
      }
      case 'put': {
        const bytes = Buffer.alloc(step.bytes);
        for (let at = 0, kind = step.kind; at < bytes.length; at += PAGE_SIZE, kind = (kind * 7 + 1) % KINDS)
          bytes.set(kinds[kind]!.subarray(0, bytes.length - at), at);
        const { id } = await this.store.put(Readable.from([bytes]), { tag: step.tag, name: null });
        this.add({ id, kind: 'file', bytes, tag: step.tag });
        return;
      }
      case 'remove': {
        const gone = [this.pick(step.which), step.also === null ? undefined : this.pick(step.also)];
        const ids = gone.flatMap((kept) => (kept ? [kept.id] : []));
        if (ids.length > 0) this.store.remove(ids);
        this.kept = this.kept.filter(({ id }) => !ids.includes(id));
        return;
      }
      case 'tag': {
        const kept = this.pick(step.which);
        if (!kept) return;
        this.store.setTag(kept.id, step.tag);
        this.untag(step.tag);
        kept.tag = step.tag;
        return;
      }
      case 'gc':
        await this.store.gc({ dryRun: false });
        return this.expectAll();
      case 'check':
        assert.deepEqual(await this.store.check({ readData: true }), { ok: true, problems: [] });
        return;
      case 'reopen':
        this.store.close();
        this.store = this.open();
        return;
      case 'repair':
      case 'lose index':
        this.store.close();
        if (step.do === 'lose index')
          for (const suffix of ['', '-wal', '-shm'])
            rmSync(join(this.dir, `store.db${suffix}`), { force: true });
        await Store.repair(this.dir);
        this.store = this.open();
        return this.expectAll();
    }
  }

  expectList(): void {
    assert.deepEqual(
      this.store
        .list()
        .map(({ id, tag: label }) => `${id} ${label}`)
        .sort(),
      this.kept.map(({ id, tag: label }) => `${id} ${label}`).sort(),
    );
  }

  async expectAll(): Promise<void> {
    this.expectList();
    for (const { id, bytes } of this.kept) {
      const [found] = Object.values(await load(this.store, id));
      assert.ok(found!.equals(bytes), `snapshot ${id} has other bytes`);
    }
  }
}

describe(`any sequence of steps on a store (seed ${seed})`, () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const fingerprintBits of [64, 4])
    it(`leaves every snapshot as it was saved; fingerprints of ${fingerprintBits} bits, ${runs} runs`, async function () {
      this.timeout(runs * 60_000);
      const dir = scratchDir(this);
      let run = 0;
      await fc.assert(
        fc.asyncProperty(fc.array(command, { maxLength: 40, size: 'max' }), async (steps) => {
          const model = new Model(join(dir, String(run++)), fingerprintBits);
          try {
            for (const step of steps) {
              await model.carryOut(step);
              model.expectList();
            }
            await model.expectAll();
            assert.deepEqual(await model.store.check({ readData: true }), { ok: true, problems: [] });
            model.store.remove(model.store.list().map(({ id }) => id));
            await model.store.gc({ dryRun: false });
            for (const folder of ['packs', 'segments', 'snapshots', 'tags'])
              assert.deepEqual(readdirSync(join(model.dir, folder)), []);
          } finally {
            model.store.close();
            rmSync(model.dir, { recursive: true });
          }
        }),
        { seed, numRuns: runs, endOnFailure: false, interruptAfterTimeLimit: runs * 50_000 },
      );
    });
});
