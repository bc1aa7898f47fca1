/** Exports: how interrupted ones resume, and what is never removed. */
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { exportSnapshot } from '../../src/store/remote/export.js';
import { Store } from '../../src/store/store.js';
import { Database } from '../sqlite.js';
import { copy } from './copying.js';
import { dropScratch, load, newStore, noise, save, scratchDir } from './scratch.js';

const silent = { onPlan: () => {}, progress: () => {} };

describe('an export', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('refuses a target whose parent is missing, as does a copy, and creates nothing', async function () {
    const { store, dir } = newStore(this);
    await save(store, { x: noise(1, 20) }, { tag: 'a' });
    const stick = join(scratchDir(this), 'stick');
    const refusal = {
      code: 'NO_SUCH_FILE',
      message: `cannot create ${join(stick, 'x')}: ${stick} does not exist`,
      hint: /mount the disk/,
    };
    const to = join(stick, 'x');
    await assert.rejects(exportSnapshot({ ...silent, storeDir: dir, ref: 'a', to }), refusal);
    await assert.rejects(copy(dir, 'to', to, ['a']), refusal);
    assert.equal(existsSync(stick), false);
    writeFileSync(stick, '');
    const noDirectory = { code: 'USAGE', message: `cannot create ${to}: ${stick} is not a directory` };
    await assert.rejects(exportSnapshot({ ...silent, storeDir: dir, ref: 'a', to }), noDirectory);
    await assert.rejects(copy(dir, 'to', to, ['a']), noDirectory);
    rmSync(stick);
    mkdirSync(stick);
    await exportSnapshot({ ...silent, storeDir: dir, ref: 'a', to });
    assert.equal(existsSync(join(to, 'store.db')), true);
  });

  it('refuses a .partial that no export made, and leaves it unchanged', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { x: noise(1, 20) }, { tag: 'a' });
    const { store: foreign, dir: foreignDir } = newStore(this);
    await save(foreign, { x: noise(2, 20) });
    foreign.close();
    const things: Record<string, (partial: string) => void> = {
      'a directory of the user': (partial) => {
        mkdirSync(partial);
        writeFileSync(join(partial, 'thesis.txt'), 'years of work');
      },
      'a file': (partial) => writeFileSync(partial, 'years of work'),
      'a link to a directory': (partial) => symlinkSync(foreignDir, partial),
      'another store': (partial) => renameSync(foreignDir, partial),
      'a directory with a store in it': (partial) => {
        mkdirSync(partial);
        mkdirSync(join(partial, 'store'));
        writeFileSync(join(partial, 'store', 'thesis.txt'), 'years of work');
      },
    };
    for (const [what, put] of Object.entries(things)) {
      const to = join(scratchDir(this), 'out');
      const partial = `${to}.partial`;
      put(partial);
      const before = existsSync(join(partial, 'thesis.txt')) || readdirSync(join(partial, '..')).length;
      await assert.rejects(exportSnapshot({ ...silent, storeDir: dir, ref: 'a', to }), (error: Error) => {
        assert.match(error.message, /was not left by an export/, what);
        return true;
      });
      assert.equal(
        existsSync(join(partial, 'thesis.txt')) || readdirSync(join(partial, '..')).length,
        before,
      );
      assert.ok(!existsSync(to), what);
      if (what === 'another store') {
        const still = Store.open(partial, { write: false });
        assert.equal(still.list().length, 1);
        still.close();
        renameSync(partial, foreignDir);
      }
    }
    // The .partial of an export, with a file of the user in it.
    const to = join(scratchDir(this), 'out');
    await interruptExport(dir, id, to);
    writeFileSync(join(`${to}.partial`, 'store', 'thesis.txt'), 'years of work');
    for (const ref of ['a', (await save(store, { x: noise(3, 5) })).id])
      await assert.rejects(exportSnapshot({ ...silent, storeDir: dir, ref, to }), { code: 'USAGE' });
    assert.equal(readFileSync(join(`${to}.partial`, 'store', 'thesis.txt'), 'utf8'), 'years of work');
  });

  it('accepts an empty .partial', async function () {
    const { store, dir } = newStore(this);
    await save(store, { x: noise(1, 20) }, { tag: 'a' });
    const to = join(scratchDir(this), 'out');
    mkdirSync(`${to}.partial`);
    await exportSnapshot({ ...silent, storeDir: dir, ref: 'a', to });
    assert.ok(!existsSync(`${to}.partial`));
  });

  it('resumes an interrupted export', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { x: noise(1, 20) }, { tag: 'a' });
    const to = join(scratchDir(this), 'out');
    await interruptExport(dir, id, to);
    const { sentChunks } = await exportSnapshot({ ...silent, storeDir: dir, ref: 'a', to });
    assert.equal(sentChunks, 0);
    assert.deepEqual(readdirSync(join(to, '..')), ['out']);
    assert.deepEqual(
      readdirSync(to).filter((name) => !name.startsWith('store.db')),
      ['index.lock', 'lock', 'packs', 'segments', 'snapshots', 'tags'],
    );
  });

  it('replaces an interrupted export of another snapshot', async function () {
    const { store, dir } = newStore(this);
    const a = await save(store, { x: noise(1, 20) });
    const b = await save(store, { x: noise(2, 20) });
    const to = join(scratchDir(this), 'out');
    await interruptExport(dir, a.id, to);
    await exportSnapshot({ ...silent, storeDir: dir, ref: b.id, to });
    const made = Store.open(to, { write: false });
    assert.deepEqual(
      made.list().map(({ id }) => id),
      [b.id],
    );
    assert.deepEqual(await load(made, b.id), { x: noise(2, 20) });
    made.close();
    assert.deepEqual(readdirSync(join(to, '..')), ['out']);
  });

  it('refuses the .partial of a newer livesnap or of a running export', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { x: noise(1, 20) }, { tag: 'a' });
    const to = join(scratchDir(this), 'out');
    await interruptExport(dir, id, to);
    const index = new Database(join(`${to}.partial`, 'store', 'store.db'));
    const version = index.pragma('user_version', { simple: true });
    index.pragma('user_version = 99');
    await assert.rejects(exportSnapshot({ ...silent, storeDir: dir, ref: 'a', to }), {
      code: 'NEWER_FORMAT',
    });
    index.pragma(`user_version = ${version}`);
    index.close();
    const both = await Promise.allSettled(
      ['a', id].map((ref) => exportSnapshot({ ...silent, storeDir: dir, ref, to })),
    );
    const failed = both.filter((one) => one.status === 'rejected');
    assert.equal(failed.length, 1);
    assert.ok(['STORE_BUSY', 'USAGE'].includes((failed[0] as PromiseRejectedResult).reason.code));
    assert.deepEqual(readdirSync(join(to, '..')), ['out']);
  });
});

/** Leaves the state of an export that was killed before its last step. */
async function interruptExport(storeDir: string, id: string, to: string): Promise<void> {
  const request = { ...silent, storeDir, ref: id, to };
  await exportSnapshot({
    ...request,
    onPlan: () => {
      // Occupies the final name, so that the export fails at the end.
      mkdirSync(to);
      writeFileSync(join(to, 'x'), '');
    },
  }).then(
    () => assert.fail('the export succeeded'),
    () => {},
  );
  rmSync(to, { recursive: true });
}
