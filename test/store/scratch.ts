/** Temporary directories and stores for tests, and pages in memory as source and sink. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pageOps } from '../../src/native/pages.js';
import {
  BATCH_PAGES,
  PAGE_BYTES,
  type PageRun,
  type PageSink,
  type PageSource,
  type SavedRegion,
} from '../../src/page-stream.js';
import { Store } from '../../src/store/store.js';
import type { SaveResult, SnapshotMetadata } from '../../src/store/types.js';
import { usePageWorkers } from '../../src/store/worker/page-pool.js';

usePageWorkers(); // else every test would start new ones

/** A temporary directory, deleted by {@link dropScratch}. */
export function scratchDir(context: Mocha.Context): string {
  const dir = mkdtempSync(join(tmpdir(), 'livesnap-test-'));
  const cleanup = (): void => rmSync(dir, { recursive: true, force: true });
  const holder = context as unknown as { scratch?: (() => void)[] };
  holder.scratch ??= [];
  holder.scratch.push(cleanup);
  return dir;
}

/** Runs the test's cleanups, last first. Call it in `afterEach`. */
export function dropScratch(context: Mocha.Context): void {
  const holder = context as unknown as { scratch?: (() => void)[] };
  for (const cleanup of holder.scratch?.splice(0).reverse() ?? []) cleanup();
}

/** Registers a cleanup. */
export function onDrop(context: Mocha.Context, cleanup: () => void): void {
  const holder = context as unknown as { scratch?: (() => void)[] };
  holder.scratch ??= [];
  holder.scratch.push(cleanup);
}

export function newStore(context: Mocha.Context, fingerprintBits = 64): { store: Store; dir: string } {
  const dir = join(scratchDir(context), 'store');
  const store = Store.open(dir, { write: true, create: true, fingerprintBits });
  onDrop(context, () => store.close());
  return { store, dir };
}

/** A small, fast random number generator (mulberry32): 32 bits per call. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** Pages that LZ4 cannot compress. */
export function noise(seed: number, pages: number): Buffer {
  const next = seeded(seed);
  const words = new Uint32Array((pages * PAGE_BYTES) / 4);
  for (let i = 0; i < words.length; i++) words[i] = next();
  return Buffer.from(words.buffer);
}

/** Pages that LZ4 compresses well. */
export function textPages(seed: number, pages: number): Buffer {
  const next = seeded(seed);
  const bytes = Buffer.alloc(pages * PAGE_BYTES, ' ');
  for (let i = 0; i < bytes.length; i += 16) bytes.write(`word${next() % 1000}`, i, 'latin1');
  return bytes;
}

/** The fingerprint of one page. */
export function fingerprintOf(page: Uint8Array): Uint8Array {
  const fingerprint = new Uint8Array(8);
  pageOps.hashPages(page, 1, fingerprint);
  return fingerprint;
}

/** Flips one bit of a file. */
export function flipBit(path: string, offset: number, bit = 0): void {
  const bytes = readFileSync(path);
  bytes[offset]! ^= 1 << bit;
  writeFileSync(path, bytes);
}

type Regions = Record<string, Buffer>;

/** A source of whole regions, or of some of their pages. */
export class MemorySource implements PageSource {
  readonly regions;
  readonly #runs: { region: number; pages: number[] }[] = [];

  constructor(
    readonly contents: Regions,
    only?: Record<string, number[]>,
    readonly sequential: readonly number[] = [],
  ) {
    const names = Object.keys(contents);
    this.regions = names.map((name) => ({ name, sizeBytes: contents[name]!.length }));
    names.forEach((name, region) => {
      const count = Math.ceil(contents[name]!.length / PAGE_BYTES);
      const pages = only ? (only[name] ?? []) : Array.from({ length: count }, (_, i) => i);
      for (let i = 0; i < pages.length; i += BATCH_PAGES)
        this.#runs.push({ region, pages: pages.slice(i, i + BATCH_PAGES) });
    });
  }

  async next(into: Uint8Array): Promise<PageRun | null> {
    const run = this.#runs.shift();
    if (!run) return null;
    const bytes = this.contents[this.regions[run.region]!.name]!;
    run.pages.forEach((page, i) => {
      into.fill(0, i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
      into.set(bytes.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES), i * PAGE_BYTES);
    });
    return { region: run.region, pages: Uint32Array.from(run.pages) };
  }
}

/** Keeps the pages. Throws for a page of zeros, and for a page that it has got before. */
export class MemorySink implements PageSink {
  readonly contents: Regions = {};
  readonly #given = new Set<string>();

  constructor(readonly regions: readonly { name: string; sizeBytes: number }[]) {
    for (const { name, sizeBytes } of regions) this.contents[name] = Buffer.alloc(sizeBytes);
  }

  write({ region, pages }: PageRun, bytes: Uint8Array): void {
    if (pages.length > BATCH_PAGES || bytes.length !== pages.length * PAGE_BYTES)
      throw new Error('a bad batch');
    const { name, sizeBytes } = this.regions[region]!;
    pages.forEach((page, i) => {
      const key = `${name} ${page}`;
      if (this.#given.has(key)) throw new Error(`page ${key} came twice`);
      this.#given.add(key);
      const content = bytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
      if (content.every((byte) => byte === 0)) throw new Error(`page ${key} is zero`);
      this.contents[name]!.set(content.subarray(0, sizeBytes - page * PAGE_BYTES), page * PAGE_BYTES);
    });
  }
}

export const machineMetadata = (over: Partial<SnapshotMetadata> = {}): SnapshotMetadata => ({
  kind: 'machine',
  vm: 'a',
  tags: [],
  memoryBytes: 0,
  diskBytes: 0,
  machine: { cpus: 1 },
  host: { name: 'test' },
  state: Buffer.from('registers'),
  ...over,
});

export const diskMetadata = (over: Partial<SnapshotMetadata> = {}): SnapshotMetadata =>
  machineMetadata({ kind: 'disk', state: new Uint8Array(0), ...over });

/** Saves regions as a machine. `only`: the pages to give. */
export async function save(
  store: Store,
  contents: Regions,
  {
    parent = null,
    only,
    tag = null,
    tags = tag === null ? [] : [tag],
  }: {
    parent?: string | null;
    only?: Record<string, number[]>;
    tag?: string | null;
    tags?: readonly string[];
  } = {},
): Promise<SaveResult> {
  const session = await store.beginSave({ regions: basedOn(parent, Object.keys(contents)) });
  try {
    await session.store(new MemorySource(contents, only));
    return await session.commit(machineMetadata({ tags }));
  } catch (error) {
    await session.abort();
    throw error;
  }
}

/** For `beginSave`: regions with these names, each relative to the region of the same name in `parent`. */
export const basedOn = (parent: string | null, names: readonly string[] = ['ram@0x0']): SavedRegion[] =>
  names.map((region) => ({ region, bases: parent === null ? [] : [{ snapshot: parent, region }] }));

/** The regions of a snapshot, as a restore gets them. */
export async function load(store: Store, ref: string): Promise<Regions> {
  const snapshot = await store.openSnapshot(ref);
  try {
    const sink = new MemorySink(snapshot.regions);
    await snapshot.fill(sink);
    return sink.contents;
  } finally {
    snapshot.close();
  }
}

export const diskUsage = (dir: string): number =>
  Number(execFileSync('du', ['-b', '-s', dir], { encoding: 'utf8' }).split('\t')[0]);

/** Mounts until the end of the test. Skips the test with a message if mounting is impossible. */
function mount(context: Mocha.Context, at: string, ...steps: string[][]): void {
  let mounted = 0;
  try {
    for (const args of steps) {
      execFileSync('mount', [...args, at], { stdio: 'pipe' });
      if (mounted++ === 0) onDrop(context, () => execFileSync('umount', ['-l', at]));
    }
  } catch (error) {
    console.warn(`SKIPPED: cannot mount at ${at}: ${(error as Error).message.trim()}`);
    context.skip();
  }
}

export const mountReadOnly = (context: Mocha.Context, at: string): void =>
  mount(context, at, ['--bind', at], ['-o', 'remount,bind,ro']);

/** Mounts a file system of `sizeBytes` at an empty directory. */
export const mountSmall = (context: Mocha.Context, at: string, sizeBytes: number): void =>
  mount(context, at, ['-t', 'tmpfs', '-o', `size=${sizeBytes}`, 'livesnap-test']);

/** A block device with the bytes of a file. Skips the test if there can be none. */
export function loopDevice(context: Mocha.Context, file: string): string {
  try {
    const device = execFileSync('losetup', ['--find', '--show', file], {
      encoding: 'utf8',
      stdio: 'pipe',
    }).trim();
    onDrop(context, () => execFileSync('losetup', ['--detach', device]));
    return device;
  } catch (error) {
    console.warn(`SKIPPED: no loop device for ${file}: ${(error as Error).message.trim()}`);
    return context.skip();
  }
}
