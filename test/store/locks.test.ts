/** Invariant 6: gc never waits, and deletes nothing that a session of this or another process may need. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs, {
  closeSync,
  cpSync,
  existsSync,
  linkSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { tryLock } from '../../src/native/locks.js';
import { pageOps } from '../../src/native/pages.js';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { StoreContext } from '../../src/store/context.js';
import {
  createLocked,
  lockState,
  openExclusive,
  openShared,
  unlinkUnlessLocked,
} from '../../src/store/disk/file-locks.js';
import { Marks } from '../../src/store/gc/marks.js';
import { Index, type PackRow } from '../../src/store/index/index-database.js';
import { PackHolds } from '../../src/store/pack/pack-holds.js';
import { copySnapshots } from '../../src/store/remote/copy.js';
import { type SaveSession, Store } from '../../src/store/store.js';
import {
  basedOn,
  dropScratch,
  load,
  MemorySink,
  MemorySource,
  machineMetadata,
  newStore,
  noise,
  save,
  scratchDir,
  textPages,
} from './scratch.js';

const cli = fileURLToPath(new URL('../../bin/livesnap.js', import.meta.url));
const sessionChild = fileURLToPath(new URL('./session-child.js', import.meta.url));
const gc = (store: Store) => store.gc({ dryRun: false });
const hex = (number: number): string => number.toString(16).padStart(8, '0');
const packsOf = (dir: string): string[] => readdirSync(join(dir, 'packs'));
const snapshotsOf = (dir: string): string[] => readdirSync(join(dir, 'snapshots'));

async function requireSound(store: Store): Promise<void> {
  const { ok, problems } = await store.check({ readData: true });
  assert.ok(ok, JSON.stringify(problems));
}

describe('gc beside sessions', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('keeps a dead pack that a save has begun to use', async function () {
    const { store } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 200) };
    const { id } = await save(store, contents);
    store.remove([id]);
    const session = await store.beginSave({ regions: [] });
    await session.store(new MemorySource(contents));
    await gc(store);
    const saved = await session.commit(machineMetadata());
    assert.equal(saved.newChunks, 0);
    await gc(store);
    assert.deepEqual(await load(store, saved.id), contents);
    await requireSound(store);
  });

  it('does not rewrite a pack while a save uses its dead chunks', async function () {
    const { store } = newStore(this);
    const both = { 'ram@0x0': Buffer.concat([noise(1, 100), noise(2, 100)]) };
    const { id } = await save(store, both);
    const half = { 'ram@0x0': noise(1, 100) };
    await save(store, half);
    store.remove([id]);
    const session = await store.beginSave({ regions: [] });
    await session.store(new MemorySource(both));
    assert.equal((await gc(store)).removedChunks, 0);
    const saved = await session.commit(machineMetadata());
    assert.deepEqual(await load(store, saved.id), both);
    store.remove([saved.id]);
    assert.ok((await gc(store)).removedChunks >= 100);
    await requireSound(store);
  });

  it('keeps the files of a save that has not committed', async function () {
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 700) };
    const session = await store.beginSave({ regions: [] });
    await session.store(new MemorySource(contents));
    assert.equal(packsOf(dir).length, 1);
    assert.deepEqual(await gc(store), { removedChunks: 0, freedBytes: 0, recompressed: null });
    assert.equal(store.stats().deadBytes, 0);
    const { id } = await session.commit(machineMetadata());
    assert.deepEqual(await load(store, id), contents);
  });

  /** Runs gc and restores the files that it deleted, as if it had been killed after its last commit. */
  async function collectAndLeave(store: Store): Promise<void> {
    const packs = join(store.dir, 'packs');
    const copy = `${store.dir}-packs`;
    cpSync(packs, copy, { recursive: true });
    await gc(store);
    cpSync(copy, packs, { recursive: true, force: false });
  }

  it('keeps a pack that a save uses, if an earlier gc was killed before it deleted the file', async function () {
    const { store } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 200) };
    store.remove([(await save(store, contents)).id]);
    const session = await store.beginSave({ regions: [] });
    await collectAndLeave(store);
    await session.store(new MemorySource(contents));
    const { id, newChunks } = await session.commit(machineMetadata());
    assert.equal(newChunks, 0);
    await gc(store);
    assert.deepEqual(await load(store, id), contents);
    await requireSound(store);
  });

  it('keeps an older generation that a save uses, if an earlier gc was killed before deleting it', async function () {
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 200) };
    const { id: removed } = await save(store, contents);
    await save(store, { 'ram@0x0': contents['ram@0x0'].subarray(0, 100 * PAGE_BYTES) });
    store.remove([removed]);
    const session = await store.beginSave({ regions: [] });
    await collectAndLeave(store);
    assert.ok(packsOf(dir).includes('00000001-1.pack'));
    await session.store(new MemorySource(contents));
    const { id, newChunks } = await session.commit(machineMetadata());
    assert.equal(newChunks, 0);
    await gc(store);
    assert.ok(!packsOf(dir).includes('00000001-1.pack'));
    assert.deepEqual(await load(store, id), contents);
    await requireSound(store);
  });

  /**
   * Runs `commands` on a store whose pack has the pages c and d, c dead. A save has begun before a gc that was killed:
   * the index lists generation 1, which has only d, and the file of generation 0 is still there.
   */
  async function afterAKilledGc(context: Mocha.Context, commands: (at: Leftover) => Promise<void>) {
    const { store, dir } = newStore(context);
    const [c, d] = [noise(1, 100), noise(2, 100)];
    const { id: removed } = await save(store, { 'ram@0x0': Buffer.concat([c, d]) });
    const { id: kept } = await save(store, { 'ram@0x0': d });
    store.remove([removed]);
    const early = await store.beginSave({ regions: [] });
    await collectAndLeave(store);
    const other = Store.open(dir, { write: true });
    try {
      await commands({ store, other, dir, early, kept, c, d });
    } finally {
      other.close();
    }
    await gc(store);
    await requireSound(store);
  }

  interface Leftover {
    readonly store: Store;
    readonly other: Store;
    readonly dir: string;
    /** A save that began before the gc. */
    readonly early: SaveSession;
    readonly kept: string;
    readonly c: Buffer;
    readonly d: Buffer;
  }

  it('keeps the generation that a save has listed again, while another save holds a later one', async function () {
    await afterAKilledGc(this, async ({ store, other, early, c, d }) => {
      const late = await other.beginSave({ regions: [] });
      await early.store(new MemorySource({ 'ram@0x0': c }));
      await late.store(new MemorySource({ 'ram@0x0': d }));
      const { id, newChunks } = await early.commit(machineMetadata());
      assert.ok(newChunks <= 2);
      const { id: later } = await late.commit(machineMetadata());
      await gc(store);
      assert.deepEqual((await load(store, id))['ram@0x0'], c);
      assert.deepEqual((await load(store, later))['ram@0x0'], d);
    });
  });

  for (const [what, isKept] of Object.entries({ rewrites: true, removes: false }))
    it(`${what} no pack if a save has listed an earlier generation of it meanwhile`, async function () {
      await afterAKilledGc(this, async ({ store, other, dir, early, kept, c, d }) => {
        // Half or all of the later generation is dead, so the second gc is going to rewrite or remove it.
        if (isKept) await save(other, { 'ram@0x0': d.subarray(0, 50 * PAGE_BYTES) });
        store.remove([kept]);
        await early.store(new MemorySource({ 'ram@0x0': c }));
        // The test delays the commit. Until then it holds the same locks as the save.
        const { commitSave, packs, removePacks } = Index.prototype;
        let commit = (): void => assert.fail('the save did not reach its commit');
        Index.prototype.commitSave = function (...args) {
          const own = [
            ...args[2].map(({ number }) => `packs/${hex(number)}-0.pack`),
            `snapshots/${args[0].id}`,
          ];
          if (args[4]) own.push(`segments/${hex(args[4].number)}.seg`);
          const pack = openSync(join(dir, 'packs/00000001-0.pack'), 'r');
          assert.ok(tryLock(pack, 'shared'));
          const files = own.map((name) => openSync(join(dir, name), 'r'));
          holdOwn = () => assert.ok(files.every((fd) => tryLock(fd, 'exclusive')));
          commit = () => {
            commitSave.apply(this, args);
            for (const fd of [pack, ...files]) closeSync(fd);
            commit = () => {};
          };
          return { tags: [], movedTags: [] };
        };
        let holdOwn = (): void => {};
        let id: string;
        try {
          ({ id } = await early.commit(machineMetadata()));
          holdOwn();
          let listings = 0;
          if (isKept)
            Index.prototype.packs = function () {
              const rows = packs.call(this);
              if (++listings === 2) commit(); // between the listing and the lock
              return rows;
            };
          else
            Index.prototype.removePacks = function (...args) {
              if (args[0].some(({ number }) => number === 1)) commit(); // after gc has marked for the last time
              return removePacks.apply(this, args) as never;
            };
          await gc(other);
        } finally {
          Object.assign(Index.prototype, { commitSave, packs, removePacks });
        }
        assert.ok(
          store.list().some((snapshot) => snapshot.id === id),
          'gc did not reach the point where the save commits',
        );
        assert.deepEqual((await load(store, id))['ram@0x0'], c);
      });
    });

  it('does not rewrite a pack while a later generation of it is held', async function () {
    await afterAKilledGc(this, async ({ store, other, dir, early, c, d }) => {
      const late = await other.beginSave({ regions: [] });
      const [half, page] = [c.subarray(0, 50 * PAGE_BYTES), d.subarray(0, PAGE_BYTES)];
      await late.store(new MemorySource({ 'ram@0x0': page })); // holds generation 1
      await early.store(new MemorySource({ 'ram@0x0': half }));
      const { id } = await early.commit(machineMetadata()); // generation 0 is listed again
      // If it were rewritten, the other save would replace it by a generation that lacks some of its chunks.
      assert.equal((await store.gc({ dryRun: true })).removedChunks, 0);
      assert.equal((await gc(store)).removedChunks, 0);
      const { id: later } = await late.commit(machineMetadata());
      for (let i = 0; i < 2; i++) {
        assert.deepEqual((await load(store, id))['ram@0x0'], half);
        assert.deepEqual((await load(store, later))['ram@0x0'], page);
        if (i === 0) assert.ok((await gc(store)).removedChunks >= 50);
      }
      assert.ok(packsOf(dir).includes('00000001-1.pack') && !packsOf(dir).includes('00000001-0.pack'));
    });
  });

  it('may rewrite a pack that a save has read but not locked; the save then uses what remains', async function () {
    const { store } = newStore(this);
    const whole = noise(1, 200);
    const { id: removed } = await save(store, { 'ram@0x0': whole });
    const half = Buffer.from(whole.subarray(0, 100 * PAGE_BYTES));
    const { id: parent } = await save(store, { 'ram@0x0': half });
    store.remove([removed]);
    const session = await store.beginSave({ regions: basedOn(parent) });
    await session.store(new MemorySource({ 'ram@0x0': half }, { 'ram@0x0': [0] })); // reads the parent's page
    await gc(store); // removes the second half of the pack
    whole.copy(half, PAGE_BYTES, 150 * PAGE_BYTES, 160 * PAGE_BYTES);
    const pages = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    await session.store(new MemorySource({ 'ram@0x0': half }, { 'ram@0x0': pages }));
    const { id } = await session.commit(machineMetadata());
    await gc(store);
    assert.deepEqual((await load(store, id))['ram@0x0'], half);
    await requireSound(store);
  });

  it('does not prevent a save whose segment number has a file from an interrupted repair', async function () {
    const { store, dir } = newStore(this);
    writeFileSync(join(dir, 'segments/00000001.seg'), 'left');
    const contents = { 'ram@0x0': noise(1, 20) };
    const { id } = await save(store, contents);
    assert.deepEqual(await load(store, id), contents);
    await requireSound(store);
  });

  it('keeps the chunks that a save inherits from a parent that is removed meanwhile', async function () {
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': Buffer.concat([noise(1, 600), noise(2, 600)]) };
    const parent = await save(store, contents);
    const session = await store.beginSave({ regions: basedOn(parent.id) });
    store.remove([parent.id]);
    assert.deepEqual(store.list(), []);
    await gc(store);
    contents['ram@0x0'] = Buffer.concat([noise(1, 600), noise(2, 599), noise(3, 1)]);
    await session.store(new MemorySource(contents, { 'ram@0x0': [1199] }));
    await gc(store);
    const saved = await session.commit(machineMetadata());
    assert.equal(saved.parent, parent.id);
    await gc(store);
    assert.deepEqual(await load(store, saved.id), contents);
    assert.deepEqual(snapshotsOf(dir), [saved.id]);
    await requireSound(store);
  });

  it('keeps a snapshot that is removed while it is read, and deletes it afterwards', async function () {
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 700) };
    const { id } = await save(store, contents);
    const open = await store.openSnapshot(id);
    store.remove([id]);
    await gc(store);
    await assert.rejects(store.openSnapshot(id), { code: 'NO_SUCH_SNAPSHOT' });
    const sink = new MemorySink(open.regions);
    await open.fill(sink);
    assert.deepEqual(sink.contents, contents);
    open.close();
    await gc(store);
    assert.deepEqual([packsOf(dir), snapshotsOf(dir)], [[], []]);
  });

  it('may rewrite a pack that is being read; the reader continues with the new generation', async function () {
    const { store, dir } = newStore(this);
    const whole = await save(store, { 'ram@0x0': Buffer.concat([noise(1, 600), noise(2, 300)]) });
    const half = { 'ram@0x0': noise(1, 600) };
    const { id } = await save(store, half);
    store.remove([whole.id]);
    const open = await store.openSnapshot(id);
    const before = packsOf(dir);
    await gc(store);
    assert.notDeepEqual(packsOf(dir), before);
    const sink = new MemorySink(open.regions);
    await open.fill(sink);
    assert.deepEqual(sink.contents, half);
    const session = await store.beginSave({ regions: basedOn(id) });
    await session.store(new MemorySource(half));
    assert.equal((await session.commit(machineMetadata())).newChunks, 0);
    open.close();
  });

  it('keeps a snapshot whose file was replaced between two pins of one thread', async function () {
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 300) };
    const { id } = await save(store, contents);
    const first = await store.openSnapshot(id);
    const path = join(dir, 'snapshots', id);
    // As repair sets a file aside, and a copy brings it back.
    const bytes = readFileSync(path);
    unlinkSync(path);
    writeFileSync(path, bytes);
    const second = await store.openSnapshot(id);
    first.close();
    assert.equal(lockState(path), 'shared');
    store.remove([id]);
    await gc(store);
    const sink = new MemorySink(second.regions);
    await second.fill(sink);
    assert.deepEqual(sink.contents, contents);
    second.close();
    assert.equal(lockState(path), 'free');
    await gc(store);
    assert.deepEqual([packsOf(dir), snapshotsOf(dir)], [[], []]);
  });

  for (const verb of ['pin', 'save'])
    it(`is not blocked by a process that was killed during a ${verb}`, async function () {
      const { store, dir } = newStore(this);
      const { id } = await save(store, { 'ram@0x0': noise(1, 300) });
      const child = spawn(process.execPath, [sessionChild, dir, verb, id], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await once(child.stdout!, 'data');
      store.remove([id]);
      await gc(store);
      assert.ok(packsOf(dir).length > 0, 'gc deleted a pack that the other process used');
      child.kill('SIGKILL');
      await once(child, 'exit');
      await gc(store);
      assert.deepEqual([packsOf(dir), snapshotsOf(dir)], [[], []]);
    });

  it('waits for another gc and for repair', async function () {
    const { store, dir } = newStore(this);
    await save(store, { 'ram@0x0': noise(1, 5) });
    for (const name of ['packs', 'lock']) {
      const fd = openSync(join(dir, name), 'r');
      assert.equal(tryLock(fd, 'exclusive'), true);
      let done = false;
      const going = gc(store).then(() => {
        done = true;
      });
      await new Promise((resolve) => setTimeout(resolve, 50));
      assert.equal(done, false, name);
      closeSync(fd);
      await going;
    }
  });

  it('marks a snapshot that was saved after the first marking', async function () {
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 100) };
    const { id } = await save(store, contents);
    store.remove([id]);
    const context = new StoreContext(dir, true, Index.open(dir, true), pageOps, 64);
    const marks = new Marks(context);
    try {
      marks.refresh();
      const [{ number }] = context.index.packs() as [PackRow];
      assert.equal(marks.usage.all.count(number), 0);
      await save(store, contents);
      marks.refresh();
      assert.ok(marks.usage.all.count(number) >= 100);
    } finally {
      marks.close();
      context.close();
    }
  });

  it('marks a snapshot again that was removed and copied back with other places', async function () {
    const { store, dir } = newStore(this);
    const { dir: backup } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 100) };
    const { id } = await save(store, contents);
    const silent = { onPlan: () => {}, progress: () => {} };
    await copySnapshots({ ...silent, storeDir: dir, direction: 'to', remote: backup, refs: [id] });
    const context = new StoreContext(dir, true, Index.open(dir, true), pageOps, 64);
    const marks = new Marks(context);
    try {
      marks.refresh();
      store.remove([id]);
      await gc(store);
      await copySnapshots({ ...silent, storeDir: dir, direction: 'from', remote: backup, refs: [id] });
      const [{ number }] = context.index.packs() as [PackRow];
      assert.equal(marks.usage.all.count(number), 0);
      marks.refresh();
      assert.ok(marks.usage.all.count(number) >= 100);
    } finally {
      marks.close();
      context.close();
    }
  });

  it('keeps a pack that came back from a backup, so that repair can use it', async function () {
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 50) };
    const { id } = await save(store, contents);
    const pack = join(dir, 'packs/00000001-0.pack');
    const backup = readFileSync(pack);
    unlinkSync(pack);
    store.close();
    assert.ok((await Store.repair(dir)).lost.length > 0);
    writeFileSync(pack, backup);
    const opened = Store.open(dir, { write: true });
    await gc(opened);
    opened.close();
    assert.deepEqual((await Store.repair(dir)).lost, []);
    const healed = Store.open(dir, { write: true });
    try {
      assert.deepEqual(await load(healed, id), contents);
      await gc(healed);
      assert.deepEqual(packsOf(dir), ['00000001-0.pack']);
      await requireSound(healed);
    } finally {
      healed.close();
    }
  });

  it('frees exactly what a dry run predicts, and rewrites at most maxRepackBytes', async function () {
    const { store, dir } = newStore(this);
    const kept: Record<string, Buffer> = {};
    const removed: string[] = [];
    for (let i = 0; i < 4; i++) {
      const shared = textPages(i, 300 + 100 * i);
      const all = { 'ram@0x0': Buffer.concat([shared, textPages(50 + i, 300)]) };
      removed.push((await save(store, all)).id);
      kept[(await save(store, { 'ram@0x0': shared })).id] = shared;
    }
    store.remove(removed);
    writeFileSync(join(dir, 'packs', '00000fff-0.pack'), 'an orphan');
    const would = await store.gc({ dryRun: true });
    const wouldLittle = await store.gc({ dryRun: true, maxRepackBytes: 100 << 10 });
    assert.ok(wouldLittle.freedBytes < would.freedBytes);
    assert.deepEqual(await store.gc({ dryRun: false, maxRepackBytes: 100 << 10 }), wouldLittle);
    const rest = await store.gc({ dryRun: true });
    assert.deepEqual(await store.gc({ dryRun: false }), rest);
    assert.equal(wouldLittle.removedChunks + rest.removedChunks, would.removedChunks);
    for (const [id, bytes] of Object.entries(kept))
      assert.deepEqual((await load(store, id))['ram@0x0'], bytes);
    assert.deepEqual(await store.gc({ dryRun: true }), {
      removedChunks: 0,
      freedBytes: 0,
      recompressed: null,
    });
  });

  it('shrinks a store with half its snapshots removed to nearly the size of a fresh one', async function () {
    const { store } = newStore(this);
    const { store: fresh } = newStore(this);
    const contents = (i: number) => ({
      'ram@0x0': Buffer.concat([textPages(1, 400), textPages(10 + (i >> 1), 200), textPages(100 + i, 300)]),
    });
    const ids: string[] = [];
    for (let i = 0; i < 16; i++) ids.push((await save(store, contents(i))).id);
    store.remove(ids.filter((_, i) => i % 2 === 0));
    await gc(store);
    for (let i = 1; i < 16; i += 2) await save(fresh, contents(i));
    const bytes = ({ storedBytes, indexBytes }: ReturnType<Store['stats']>) => storedBytes + indexBytes;
    assert.ok(bytes(store.stats()) < 1.1 * bytes(fresh.stats()));
    await requireSound(store);
  });
});

describe('rm', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('keeps the file of a snapshot that is copied back before the old file is deleted', async function () {
    const { store, dir } = newStore(this);
    const { dir: backup } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 10) };
    const { id } = await save(store, contents);
    const silent = { onPlan: () => {}, progress: () => {} };
    await copySnapshots({ ...silent, storeDir: dir, direction: 'to', remote: backup, refs: [id] });
    const { removeSnapshots } = Index.prototype;
    Index.prototype.removeSnapshots = function (ids) {
      const labels = removeSnapshots.call(this, ids);
      execFileSync(process.execPath, [cli, 'copy', id, '--from', backup, '--store', dir, '--quiet']);
      return labels;
    };
    try {
      store.remove([id]);
    } finally {
      Object.assign(Index.prototype, { removeSnapshots });
    }
    assert.deepEqual(snapshotsOf(dir), [id]);
    assert.deepEqual(await load(store, id), contents);
    await requireSound(store);
  });
});

describe('locks on files', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('are held by the creator until it closes the file, which is not deleted before', function () {
    const path = join(scratchDir(this), 'file');
    const fd = createLocked(path);
    assert.equal(lockState(path), 'exclusive');
    assert.equal(unlinkUnlessLocked(path), null);
    assert.equal(openExclusive(path), null);
    closeSync(fd);
    assert.equal(lockState(path), 'free');
    assert.equal(
      unlinkUnlessLocked(path, () => true),
      null,
    );
    assert.equal(unlinkUnlessLocked(path), 0);
    assert.equal(lockState(path), 'gone');
  });

  it('do not count on a file that was deleted or replaced, even if it has other links', function () {
    const path = join(scratchDir(this), 'file');
    const open = { shared: openShared, exclusive: openExclusive };
    for (const mode of ['shared', 'exclusive'] as const)
      for (const replaced of [false, true]) {
        writeFileSync(path, 'old');
        linkSync(path, `${path}.backup`);
        // gc deletes the file after the session has opened it and before it has the lock.
        const opened = fs.openSync;
        fs.openSync = (...args) => {
          const fd = opened(...args);
          fs.openSync = opened;
          syncBuiltinESMExports();
          unlinkSync(path);
          if (replaced) writeFileSync(path, 'new');
          return fd;
        };
        syncBuiltinESMExports();
        const fd = open[mode](path);
        assert.equal(fs.openSync, opened);
        assert.equal(fd, null, `${mode}, ${replaced ? 'replaced' : 'gone'}`);
        rmSync(path, { force: true });
        unlinkSync(`${path}.backup`);
      }
  });

  it('do not count on a pack that gc deletes', async function () {
    const { store, dir } = newStore(this);
    await save(store, { 'ram@0x0': noise(1, 50) });
    const name = packsOf(dir)[0]!;
    const number = Number.parseInt(name, 16);
    const gone = join(dir, 'packs', name);
    const holds = new PackHolds(dir, new Map([[number, 0]]));
    const fd = openExclusive(gone)!;
    assert.equal(holds.hold(number), false, 'gc holds the lock');
    closeSync(fd);
    const later = new PackHolds(dir, new Map([[number, 0]]));
    unlinkSync(gone);
    assert.equal(later.hold(number), false, 'gc has deleted it');
    rmSync(dir, { recursive: true });
    assert.equal(existsSync(gone), false);
  });
});
