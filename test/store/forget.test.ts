/** forget on real stores: all or nothing, by what the store holds at that moment. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type ForgetOptions, forgetSnapshots } from '../../src/host/forget.js';
import type { ForgetGroup } from '../../src/host/forget-policy.js';
import { parseSnapshotFilter } from '../../src/host/snapshot-filter.js';
import { Store } from '../../src/store/store.js';
import { Database } from '../sqlite.js';
import { dropScratch, newStore, noise, onDrop, save } from './scratch.js';

const all: ForgetOptions = { rules: { last: 1 }, groupBy: [], dryRun: false };

const removedBy = (groups: readonly ForgetGroup[]): string[] =>
  groups.flatMap(({ remove }) => remove.map(({ id }) => id)).sort();

const idsOf = (store: Store): string[] =>
  store
    .list()
    .map(({ id }) => id)
    .sort();

async function requireSound(store: Store): Promise<void> {
  assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
}

describe('forget', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('removes with its tags what a dry run lists, and gc frees it', async function () {
    const { store, dir } = newStore(this);
    for (let i = 0; i < 5; i++) await save(store, { x: noise(i, 3) }, { tags: [`run-${i}`] });
    const before = idsOf(store);
    const reader = Store.open(dir, { write: false });
    onDrop(this, () => reader.close());
    const options: ForgetOptions = { ...all, rules: { last: 2, tags: ['run-0'] } };
    const would = forgetSnapshots(reader, { ...options, dryRun: true });
    assert.deepEqual(idsOf(store), before);
    assert.equal(removedBy(would).length, 2);
    assert.deepEqual(forgetSnapshots(store, options), would);
    assert.deepEqual(
      idsOf(store),
      before.filter((id) => !removedBy(would).includes(id)),
    );
    assert.deepEqual(readdirSync(join(dir, 'tags')).sort(), ['run-0', 'run-3', 'run-4']);
    assert.ok((await store.gc({ dryRun: false })).freedBytes > 0);
    await requireSound(store);
  });

  it('sees a tag that another process has set since a dry run', async function () {
    const { store, dir } = newStore(this);
    for (let i = 0; i < 3; i++) await save(store, { x: noise(i, 1) });
    const options: ForgetOptions = { ...all, rules: { last: 1, tags: ['keep*'] } };
    const [first, second] = removedBy(forgetSnapshots(store, { ...options, dryRun: true }));
    const other = Store.open(dir, { write: true });
    onDrop(this, () => other.close());
    other.addTags(first!, ['keep-this']);
    assert.deepEqual(removedBy(forgetSnapshots(store, options)), [second]);
    assert.deepEqual(store.find('keep-this').id, first);
  });

  it('decides within the transaction, when no other process can change the store', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { x: noise(1, 1) });
    const other = new Database(join(dir, 'store.db'), { timeout: 0 });
    onDrop(this, () => other.close());
    const change = (): void => void other.exec('BEGIN IMMEDIATE; ROLLBACK');
    change();
    const removed = store.removeChosen((list) => {
      assert.deepEqual(
        list.map((snapshot) => snapshot.id),
        [id],
      );
      assert.throws(change, { code: 'SQLITE_BUSY' });
      return [id];
    });
    assert.deepEqual(removed, [{ id, tags: [] }]);
    change();
  });

  it('removes nothing if a group would be left empty, or a name is unknown', async function () {
    const { store } = newStore(this);
    for (let i = 0; i < 3; i++) await save(store, { x: noise(i, 1) }, { tags: [`run-${i}`] });
    const refused: [Partial<ForgetOptions>, string][] = [
      [{ rules: { tags: ['other'] } }, 'USAGE'],
      [{ rules: {} }, 'USAGE'],
      [{ refs: ['run-0', 'run-9'] }, 'NO_SUCH_SNAPSHOT'],
      [{ refs: ['runs-*'] }, 'NO_SUCH_TAG'],
      [{ filters: [parseSnapshotFilter('parent=run-9')] }, 'NO_SUCH_SNAPSHOT'],
    ];
    for (const [options, code] of refused)
      assert.throws(() => forgetSnapshots(store, { ...all, ...options }), { code });
    assert.equal(store.list().length, 3);
  });

  it('considers only what is named and passes the filters', async function () {
    const { store } = newStore(this);
    const made = [];
    for (let i = 0; i < 4; i++)
      made.push((await save(store, { x: noise(i, 1) }, { tags: [`run-${i}`, `t${i}`] })).id);
    const filters = [
      parseSnapshotFilter('tag=t0'),
      parseSnapshotFilter('tag=t1'),
      parseSnapshotFilter('tag=t3'),
    ];
    const options = { ...all, refs: ['run-?', made[0]!], filters };
    assert.deepEqual(
      removedBy(forgetSnapshots(store, { ...options, dryRun: true })),
      [made[0], made[1]].sort(),
    );
    assert.deepEqual(removedBy(forgetSnapshots(store, { ...all, refs: ['run-1', made[2]!.slice(0, 20)] })), [
      made[1],
    ]);
    assert.deepEqual(idsOf(store), [made[0], made[2], made[3]].sort());
  });
});
