/** Cancelling by a signal: what takes long ends between two units of work, and the store stays valid. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { StoreLock } from '../../src/store/disk/store-lock.js';
import { copySnapshots } from '../../src/store/remote/copy.js';
import { Store } from '../../src/store/store.js';
import { requireSound, silent } from './copying.js';
import {
  dropScratch,
  flipBit,
  load,
  newStore,
  noise,
  onDrop,
  save,
  scratchDir,
  textPages,
} from './scratch.js';

const REASON = new Error('no longer wanted');
const isReason = (error: unknown): boolean => error === REASON;

/** A signal, and a progress callback that aborts it when it is called the given time. */
function cancelled(calls = 1): { signal: AbortSignal; progress: () => void } {
  const controller = new AbortController();
  let called = 0;
  const progress = (): void => {
    if (++called === calls) controller.abort(REASON);
  };
  return { signal: controller.signal, progress };
}

const REGION = 'ram@0x0';

/** Three snapshots, each with packs of its own. */
async function fill(store: Store): Promise<Map<string, Buffer>> {
  const saved = new Map<string, Buffer>();
  for (const seed of [1, 2, 3]) {
    const bytes = textPages(seed, 600);
    saved.set((await save(store, { [REGION]: bytes })).id, bytes);
  }
  return saved;
}

async function requireAll(store: Store, saved: ReadonlyMap<string, Buffer>): Promise<void> {
  for (const [id, bytes] of saved) assert.ok((await load(store, id))[REGION]!.equals(bytes), id);
  await requireSound(store);
}

const filesIn = (dir: string): string[] =>
  ['packs', 'snapshots', 'tags', 'segments'].flatMap((folder) => readdirSync(join(dir, folder)).sort());

describe('a signal that is aborted', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('ends gc after the pack that it rewrites, and the next gc does the rest', async function () {
    const { store } = newStore(this);
    const saved = await fill(store);
    const { signal, progress } = cancelled();
    const options = { dryRun: false, recompress: true };
    await assert.rejects(store.gc({ ...options, signal }, progress), isReason);
    await requireAll(store, saved);
    assert.equal((await store.gc(options)).recompressed?.packs, 2, 'one pack was rewritten');
    await requireAll(store, saved);
  });

  it('lets no gc begin, and ends no gc that has nothing left to do', async function () {
    const { store, dir } = newStore(this);
    const saved = await fill(store);
    store.remove([[...saved.keys()][0]!]);
    const before = filesIn(dir);
    const aborted = AbortSignal.abort(REASON);
    await assert.rejects(store.gc({ dryRun: false, signal: aborted }), isReason);
    assert.deepEqual(filesIn(dir), before);
    assert.ok((await store.gc({ dryRun: false, signal: new AbortController().signal })).freedBytes > 0);
  });

  it('ends a check between two packs', async function () {
    const { store } = newStore(this);
    await fill(store);
    // More packs than Workers, so that some are not begun.
    for (let seed = 10; seed < 30; seed++) await save(store, { [REGION]: noise(seed, 1) });
    let calls = 0;
    const { signal, progress } = cancelled();
    const checking = store.check({ readData: true, signal }, () => {
      calls++;
      progress();
    });
    await assert.rejects(checking, isReason);
    assert.ok(calls < 23, `${calls} packs were read`);
    await requireSound(store);
  });

  it('ends a check between two snapshots', async function () {
    const { store } = newStore(this);
    const saved = await fill(store);
    const packs = 3;
    const { signal, progress } = cancelled(packs);
    await assert.rejects(store.check({ readData: false, signal }, progress), isReason);
    await requireAll(store, saved);
  });

  it('ends a repair while it reads packs, and changes nothing', async function () {
    const { store, dir } = newStore(this);
    const saved = await fill(store);
    store.close();
    const [pack] = readdirSync(join(dir, 'packs')).sort() as [string];
    flipBit(join(dir, 'packs', pack), 5000);
    const before = filesIn(dir);
    const { signal, progress } = cancelled();
    await assert.rejects(Store.repair(dir, progress, { signal }), isReason);
    assert.deepEqual(filesIn(dir), before);
    assert.equal(existsSync(join(dir, 'quarantine')), false);
    const { lost } = await Store.repair(dir);
    assert.equal(lost.length, 1, 'the damage is found by the next repair');
    const again = Store.open(dir, { write: false });
    onDrop(this, () => again.close());
    assert.equal(again.list().length, saved.size);
  });

  it('ends the wait for a lock', async function () {
    const { store, dir } = newStore(this);
    const held = await StoreLock.acquire(dir, 'exclusive', 'packs');
    try {
      const controller = new AbortController();
      const collecting = store.gc({ dryRun: false, signal: controller.signal });
      setTimeout(() => controller.abort(REASON), 50);
      await assert.rejects(collecting, isReason);
    } finally {
      held.release();
    }
    await store.gc({ dryRun: false });
  });

  for (const direction of ['to', 'from'] as const)
    it(`ends a copy ${direction} a directory, and the next one resumes it`, async function () {
      const { store: here, dir } = newStore(this);
      const other = join(scratchDir(this), 'other');
      const { id } = await save(here, { x: noise(6, 9000) }, { tag: 'a' });
      const { signal, progress } = cancelled(4);
      const [storeDir, remote] = direction === 'to' ? [dir, other] : [other, dir];
      const copy = (more = {}) =>
        copySnapshots({ ...silent, storeDir, remote, direction, refs: ['a'], ...more });
      await assert.rejects(copy({ signal, progress }));
      const there = Store.open(other, { write: false });
      onDrop(this, () => there.close());
      assert.deepEqual(there.list(), []);
      const [result] = await copy();
      assert.ok(result!.presentChunks > 0, 'what had arrived was kept');
      assert.deepEqual(await load(there, id), await load(here, id));
      await requireSound(there);
    });

  it('ends a copy from a web server that does not answer', async function () {
    const server: Server = createServer(() => controller.abort(REASON));
    const controller = new AbortController();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onDrop(this, () => {
      server.closeAllConnections();
      server.close();
    });
    const { port } = server.address() as AddressInfo;
    const storeDir = join(scratchDir(this), 'store');
    await assert.rejects(
      copySnapshots({
        ...{ ...silent, storeDir, direction: 'from', refs: ['a'], signal: controller.signal },
        remote: `http://127.0.0.1:${port}/store`,
      }),
      { code: 'REMOTE_FAILED' },
    );
  });

  it('ends a copy over ssh whose other end is silent, and with it ssh', async function () {
    const { store: here, dir } = newStore(this);
    await save(here, { x: noise(6, 10) }, { tag: 'a' });
    const bin = scratchDir(this);
    const pidFile = join(bin, 'pid');
    writeFileSync(join(bin, 'ssh'), `#!/bin/sh\necho $$ >'${pidFile}'\necho ready >&2\nexec sleep 1000\n`, {
      mode: 0o755,
    });
    const { PATH } = process.env;
    onDrop(this, () => {
      process.env.PATH = PATH;
    });
    process.env.PATH = `${bin}:${PATH}`;
    const controller = new AbortController();
    const copying = copySnapshots({
      ...{ ...silent, storeDir: dir, direction: 'to', remote: 'ssh://host/store', refs: ['a'] },
      signal: controller.signal,
      onNotice: () => controller.abort(REASON),
    });
    await assert.rejects(copying, { code: 'REMOTE_FAILED' });
    assert.equal(existsSync(`/proc/${readFileSync(pidFile, 'utf8').trim()}`), false);
  });

  it('ends a put of a stream that has nothing to read, and nothing is stored', async function () {
    const { store, dir } = newStore(this);
    const before = filesIn(dir);
    const controller = new AbortController();
    const stream = new PassThrough();
    const putting = store.put(stream, { tags: ['a'], name: null, signal: controller.signal });
    stream.write(noise(1, 600), () => controller.abort(REASON));
    await assert.rejects(putting, isReason);
    assert.ok(stream.destroyed);
    assert.deepEqual([store.list(), filesIn(dir)], [[], before]);
  });

  it('ends a put of a file, and nothing is stored', async function () {
    const { store, dir } = newStore(this);
    const before = filesIn(dir);
    const file = join(scratchDir(this), 'file');
    writeFileSync(file, noise(1, 5000));
    const { signal, progress } = cancelled();
    await assert.rejects(store.put(file, { tags: [], name: null, signal }, progress), isReason);
    assert.deepEqual([store.list(), filesIn(dir)], [[], before]);
  });

  it('ends a get: a file that would be replaced stays, and a FIFO without a reader is not waited for', async function () {
    const { store } = newStore(this);
    const folder = scratchDir(this);
    const source = join(folder, 'source');
    writeFileSync(source, noise(1, 5000));
    await store.put(source, { tags: ['a'], name: null });
    const target = join(folder, 'target');
    writeFileSync(target, 'old');
    const { signal, progress } = cancelled();
    await assert.rejects(store.get('a', target, progress, signal), isReason);
    assert.equal(readFileSync(target, 'utf8'), 'old');
    assert.deepEqual(readdirSync(folder).sort(), ['source', 'target']);

    const fifo = join(folder, 'fifo');
    execFileSync('mkfifo', [fifo]);
    const waiting = new AbortController();
    setTimeout(() => waiting.abort(REASON), 50);
    await assert.rejects(store.get('a', fifo, undefined, waiting.signal));

    const full = new AbortController();
    const stream = new Writable({ write: () => full.abort(REASON) }); // never takes more
    await assert.rejects(store.get('a', stream, undefined, full.signal), isReason);
  });
});
