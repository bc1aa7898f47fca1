/**
 * A store of 10 million chunks (40 GB of pages), filled by ordinary saves. Measures:
 *
 * - a save to it, compared with the same save to an empty store
 * - time and peak memory of the other verbs
 * - one save of 10 million pages, and a copy of it to another store
 *
 *     node dist/bench/store-scale.js [--chunks N] [--rounds N] [--dir DIR]
 *
 * Each measurement runs in a process of its own. Pages differ in a few bytes only, so the store takes about 1 GB. That
 * does not change the measured work: it depends on the number of chunks.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BATCH_PAGES, PAGE_BYTES, type PageRun, type PageSource, type Region } from '../src/page-stream.js';
import { copySnapshots } from '../src/store/remote/copy.js';
import { Store } from '../src/store/store.js';
import type { SnapshotMetadata } from '../src/store/types.js';
import { argumentsOf } from '../test/arguments.js';

const GIB_PAGES = 262_144;
const SAVE_PAGES = 65_536;

/** Distinct pages, different for each seed. */
class DistinctPages implements PageSource {
  readonly regions: readonly Region[];
  #next = 0;

  constructor(
    readonly seed: number,
    readonly pages: number,
  ) {
    this.regions = [{ name: 'ram@0x0', sizeBytes: pages * PAGE_BYTES }];
  }

  async next(into: Uint8Array): Promise<PageRun | null> {
    const count = Math.min(BATCH_PAGES, this.pages - this.#next);
    if (count === 0) return null;
    const first = this.#next;
    const words = new Uint32Array(into.buffer, into.byteOffset, (count * PAGE_BYTES) / 4);
    words.fill(0);
    for (let i = 0; i < count; i++) {
      words[i * 1024] = this.seed + 1;
      words[i * 1024 + 511] = first + i;
    }
    this.#next += count;
    return { region: 0, pages: Uint32Array.from({ length: count }, (_, i) => first + i) };
  }
}

const metadata = (pages: number): SnapshotMetadata => ({
  ...{ kind: 'machine', vm: 'scale', tags: [], memoryBytes: pages * PAGE_BYTES, diskBytes: 0 },
  ...{ machine: null, host: null, state: new Uint8Array(65536) },
});

async function save(store: Store, seed: number, pages: number): Promise<string> {
  const session = await store.beginSave({ regions: [] });
  await session.store(new DistinctPages(seed, pages));
  return (await session.commit(metadata(pages))).id;
}

async function fill(store: Store, pages: number): Promise<void> {
  for (let left = pages, seed = 1; left > 0; left -= GIB_PAGES, seed++) {
    await save(store, seed, Math.min(left, GIB_PAGES));
    await store.tidy();
  }
}

/** What a child process measures, without the start of Node. */
const JOBS: Record<string, (store: Store, argument: string) => unknown> = {
  fill: (store, pages) => fill(store, Number(pages)),
  save: (store, seed) => save(store, Number(seed), SAVE_PAGES),
  ls: (store) => store.list().length,
  show: (store) => store.show(store.list()[0]!.id),
  stats: (store) => store.stats(),
  check: async (store) => {
    const { ok, problems } = await store.check({ readData: false });
    if (!ok) throw new Error(JSON.stringify(problems[0]));
  },
  restore: async (store) => {
    const snapshot = await store.openSnapshot(store.list()[0]!.id);
    await snapshot.fill({ regions: snapshot.regions, write: () => {} });
    snapshot.close();
  },
  'rm of a tenth': (store) =>
    store.remove(
      store
        .list()
        .filter((_, i) => i % 10 === 0)
        .map(({ id }) => id),
    ),
  'gc --dry-run': (store) => store.gc({ dryRun: true }),
  gc: (store) => store.gc({ dryRun: false }),
  'one save of them all': (store, pages) => save(store, 1, Number(pages)),
  'copy of it': async (store, to) => {
    const refs = [store.list()[0]!.id];
    await copySnapshots({
      ...{ storeDir: store.dir, direction: 'to', remote: to, refs },
      ...{ onPlan: () => {}, progress: () => {} },
    });
  },
};

interface Measured {
  ms: number;
  tidyMs: number;
  peakMiB: number;
  result: unknown;
}

async function child(job: string, dir: string, argument: string): Promise<void> {
  const begun = performance.now();
  const store = Store.open(dir, { write: true, create: true });
  const result = await JOBS[job]!(store, argument);
  const ms = performance.now() - begun;
  // A machine's process and the command line do the same after they have answered a save.
  if (job.includes('save')) await store.tidy();
  const tidyMs = performance.now() - begun - ms;
  store.close();
  const peakMiB = process.resourceUsage().maxRSS / 1024;
  process.stdout.write(JSON.stringify({ ms, tidyMs, peakMiB, result } satisfies Measured));
}

const self = fileURLToPath(import.meta.url);

function measure(job: string, dir: string, argument = ''): Measured {
  const ran = spawnSync(process.execPath, [self, '--job', job, '--dir', dir, argument], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (ran.status !== 0) throw new Error(`${job} failed`);
  return JSON.parse(ran.stdout);
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;
const seconds = (ms: number): string => `${(ms / 1000).toFixed(2)} s`;

function main(chunks: number, rounds: number, base: string): void {
  const big = join(base, 'big');
  const row = (name: string, { ms, peakMiB }: Measured): void =>
    console.log(`${name.padEnd(22)} ${seconds(ms).padStart(9)}   peak ${peakMiB.toFixed(0)} MiB`);
  row(`fill, ${chunks} chunks`, measure('fill', big, String(chunks)));
  const stats = measure('stats', big).result as { chunks: number; storedBytes: number; indexBytes: number };
  console.log(
    `${stats.chunks} pages in ${((stats.storedBytes + stats.indexBytes) / 2 ** 20).toFixed(0)} MiB; ` +
      `${(stats.indexBytes / stats.chunks).toFixed(1)} index bytes per chunk`,
  );
  const here: number[] = [];
  const empty: number[] = [];
  const tidying: number[] = [];
  let peak = 0;
  for (let round = 0; round < rounds; round++) {
    const fresh = join(base, `empty${round}`);
    const there = measure('save', fresh, String(100_000 + round));
    const inBig = measure('save', big, String(100_000 + round));
    rmSync(fresh, { recursive: true });
    empty.push(there.ms);
    here.push(inBig.ms);
    tidying.push(inBig.tidyMs);
    peak = Math.max(peak, inBig.peakMiB);
  }
  const ratios = here.map((ms, i) => ms / empty[i]!);
  console.log(
    `save of 256 MiB        ${seconds(median(here)).padStart(9)}   peak ${peak.toFixed(0)} MiB; in an empty store ${seconds(median(empty))}: ` +
      `${median(ratios).toFixed(2)} times as long (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`,
  );
  console.log(
    `tidying after it       ${seconds(median(tidying)).padStart(9)}   (${seconds(Math.min(...tidying))} to ${seconds(Math.max(...tidying))})`,
  );
  for (const job of [
    'ls',
    'show',
    'stats',
    'check',
    'restore',
    'rm of a tenth',
    'gc --dry-run',
    'gc',
    'check',
  ])
    row(job, measure(job, big));
  rmSync(big, { recursive: true });
  const whole = join(base, 'whole');
  row('one save of them all', measure('one save of them all', whole, String(chunks)));
  row('copy of it', measure('copy of it', whole, join(base, 'copy')));
}

const { values, positionals } = argumentsOf('bench:store-scale', {
  allowPositionals: true,
  options: {
    chunks: { type: 'string', default: '10000000' },
    rounds: { type: 'string', default: '5' },
    dir: { type: 'string' },
    job: { type: 'string' },
  },
});
if (values.job) await child(values.job, values.dir!, positionals[0] ?? '');
else {
  const base = values.dir ?? mkdtempSync(join(tmpdir(), 'livesnap-scale-'));
  mkdirSync(base, { recursive: true });
  try {
    main(Number(values.chunks), Number(values.rounds), base);
  } finally {
    if (!values.dir) rmSync(base, { recursive: true, force: true });
  }
}
