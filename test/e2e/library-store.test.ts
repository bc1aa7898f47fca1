/** The store in a program: `(await connect({ store })).store`. */
import assert from 'node:assert/strict';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import {
  type CopyRemote,
  connect,
  type Host,
  LivesnapError,
  PageClass,
  parseSnapshotFilter,
  type SnapshotStore,
} from '../../src/host/index.js';
import { probe } from '../kvm/kvm.js';
import { limit } from '../timeouts.js';
import { libraryWorldOfEachTest } from './cli.js';

const hasCode =
  (code: string) =>
  (error: unknown): boolean =>
    error instanceof LivesnapError && error.code === code;

const PAGE = 4096;
const text = (word: string, pages: number): Buffer => Buffer.alloc(pages * PAGE, `${word} `);

describe("the library's store", () => {
  let dir: string;
  let host: Host;
  let store: SnapshotStore;
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-library-'));
    host = await connect({ store: join(dir, 'store') });
    store = host.store;
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const at = (name: string): string => join(dir, name);
  function file(name: string, bytes: Buffer): string {
    writeFileSync(at(name), bytes);
    return at(name);
  }

  it('stores files and streams, lists them, and writes them back', async () => {
    const bytes = text('one', 10).subarray(0, 9 * PAGE + 7);
    const progress: number[] = [];
    const put = await store.put(file('in', bytes), {
      tags: ['b', 'a'],
      onProgress: (doneBytes) => progress.push(doneBytes),
    });
    assert.deepEqual(put.tags, ['a', 'b']);
    assert.equal(progress.at(-1), bytes.length);
    const stream = await store.put(Readable.from([Buffer.from('streamed')]), { name: 'words' });
    const listed = await store.list();
    assert.deepEqual(
      listed.map(({ id, vm, kind }) => [id, vm, kind]),
      [
        [put.id, 'in', 'file'],
        [stream.id, 'words', 'file'],
      ],
    );
    const snapshot = await store.get('a');
    assert.deepEqual([snapshot.id, snapshot.tags, snapshot.storeDir], [put.id, ['a', 'b'], at('store')]);
    assert.deepEqual(await snapshot.writeFile(at('out')), { bytes: bytes.length });
    assert.ok(readFileSync(at('out')).equals(bytes));
    const through = new PassThrough();
    const [read] = await Promise.all([
      buffer(through),
      store.writeFile(stream.id, through).then(() => through.end()),
    ]);
    assert.equal(read.toString(), 'streamed');
    assert.equal((await snapshot.details()).regions[0]!.sizeBytes, bytes.length);
  });

  it('sets, moves and removes tags, and an object never takes the tag of another snapshot', async () => {
    const { id } = await store.put(file('a', text('a', 1)), { tags: ['first'] });
    const other = await store.put(file('b', text('b', 1)), { tags: ['second'] });
    const snapshot = await store.get(id);
    assert.deepEqual(await snapshot.tag(['second', 'third']), {
      id,
      tags: ['first', 'second', 'third'],
      movedTags: [{ tag: 'second', from: other.id }],
    });
    await store.tag(other.id, ['third']);
    await assert.rejects(snapshot.untag(['first', 'third']), hasCode('NO_SUCH_TAG'));
    assert.deepEqual(await snapshot.untag(['first']), [{ tag: 'first', id }]);
    assert.deepEqual((await store.get(id)).tags, ['second']);
    assert.deepEqual(snapshot.tags, ['first'], 'the object tells what was then');
    assert.deepEqual(await snapshot.remove(), { id, tags: ['second'] });
    await assert.rejects(snapshot.details(), hasCode('NO_SUCH_SNAPSHOT'));
    await assert.rejects(store.get('second'), hasCode('NO_SUCH_SNAPSHOT'));
  });

  it('compares snapshots, and maps their pages', async () => {
    const pages = [text('a', 1), text('b', 1), text('c', 1)];
    const { id } = await store.put(file('a', Buffer.concat(pages)));
    const changed = await store.put(file('b', Buffer.concat([pages[0]!, text('x', 1), Buffer.alloc(PAGE)])));
    const snapshot = await store.get(id);
    for (const other of [changed.id, { snapshot: changed.id, region: 'file' }, await store.get(changed.id)]) {
      const [difference] = await snapshot.diff(other);
      assert.deepEqual(difference!.ranges, [{ fromBytes: PAGE, toBytes: 3 * PAGE }]);
    }
    const map = await (await store.get(changed.id)).map();
    assert.deepEqual([...map.cells], [PageClass.shared, PageClass.own, 0]);
    assert.deepEqual([map.region, map.zeroPages, map.changedPages], ['file', 1, null]);
    await assert.rejects(snapshot.map({ region: 'disk0' }), hasCode('NO_SUCH_REGION'));
  });

  it('copies, exports and imports, and tells before how much will be sent', async () => {
    const bytes = text('a', 20);
    const { id } = await store.put(file('a', bytes), { tags: ['a'] });
    const snapshot = await store.get(id);
    const plans: number[] = [];
    const sent = await snapshot.copy(
      { to: at('second') },
      { onPlan: ({ sendChunks }) => plans.push(sendChunks) },
    );
    assert.deepEqual(plans, [sent.sentChunks]);
    const second = (await connect({ store: at('second') })).store;
    assert.deepEqual(
      (await second.list()).map((each) => each.id),
      [id],
    );
    const third = (await connect({ store: at('third') })).store;
    const [fetched] = await third.copy(['a'], { from: at('second') });
    assert.equal(fetched!.id, id);
    await snapshot.export(at('exported'));
    const fourth = (await connect({ store: at('fourth') })).store;
    assert.deepEqual(
      (await fourth.import(at('exported'))).map((each) => each.id),
      [id],
    );
    await fourth.writeFile('a', at('out'));
    assert.ok(readFileSync(at('out')).equals(bytes));
    await assert.rejects(fourth.import(at('nowhere')), LivesnapError);
    await assert.rejects(snapshot.copy({ to: at('store') }), hasCode('USAGE'));
  });

  it('lists what passes, forgets what no rule keeps, and copies all', async () => {
    for (const word of ['a', 'b', 'c']) await store.put(file('same', text(word, 1)), { tags: [word] });
    await store.put(file('big', text('d', 9)), { tags: ['d'] });
    const tagsOf = (all: readonly { readonly tags: readonly string[] }[]) =>
      all.map(({ tags }) => tags.join());
    assert.deepEqual(tagsOf(await store.list({ sort: 'size', limit: 1 })), ['d']);
    assert.deepEqual(tagsOf(await store.list({ reverse: true })), ['d', 'c', 'b', 'a']);
    const filters = [parseSnapshotFilter('name=sam?')];
    assert.deepEqual(tagsOf(await store.list({ filters, limit: 2 })), ['a', 'b']);
    await assert.rejects(store.list({ limit: -1 }), hasCode('USAGE'));

    const copied = await store.copyAll({ to: at('second') }, { filters });
    assert.deepEqual([copied.results.length, copied.failed, copied.notTried], [3, [], []]);
    const controller = new AbortController();
    const reason = new Error('no longer wanted');
    const copying = store.copyAll(
      { to: at('third') },
      { signal: controller.signal, onPlan: () => controller.abort(reason) },
    );
    await assert.rejects(copying, (error: unknown) => error === reason);

    await assert.rejects(store.forget({}), hasCode('USAGE'));
    const rules = { last: 1 };
    const planned = await store.forget(rules, { dryRun: true });
    assert.equal((await store.list()).length, 4);
    assert.deepEqual(await store.forget(rules), planned);
    assert.deepEqual(tagsOf(await store.list()), ['c', 'd']);
    assert.deepEqual(await store.remove(['d'], { dryRun: true }), [
      { id: (await store.get('d')).id, tags: ['d'] },
    ]);
    assert.equal((await store.list()).length, 2);
  });

  it('frees, checks and repairs', async () => {
    const { id } = await store.put(file('a', text('a', 50)));
    await store.put(file('b', text('b', 50)));
    assert.equal((await store.stats()).snapshots, 2);
    await store.remove([id]);
    const foreseen = await store.gc({ dryRun: true });
    assert.ok(foreseen.removedChunks > 0);
    assert.deepEqual(await store.gc(), foreseen);
    const progress: number[] = [];
    const sound = { ok: true, problems: [], isNoted: true };
    assert.deepEqual(await store.check({ readData: true, onProgress: (done) => progress.push(done) }), sound);
    assert.ok(progress.length > 0);
    const [pack] = readdirSync(join(at('store'), 'packs')) as [string];
    truncateSync(join(at('store'), 'packs', pack), 100);
    const damaged = await store.check();
    assert.equal(damaged.ok, false);
    assert.ok((await store.repair()).lost.length > 0);
    unlinkSync(join(at('store'), 'store.db'));
    assert.equal((await store.repair()).lost.length, 1);
    assert.equal((await store.list()).length, 1);
  });

  it('holds nothing between two calls: the store can be repaired', async () => {
    await store.put(file('a', text('a', 1)), { tags: ['a'] });
    const snapshot = await store.get('a');
    await store.repair(); // it needs exclusive access
    assert.equal((await snapshot.details()).id, snapshot.id);
  });

  it('does nothing when the signal was aborted before the call, and creates no store', async () => {
    const reason = new Error('no longer wanted');
    const aborted = { signal: AbortSignal.abort(reason) };
    for (const call of [
      () => store.put(file('a', text('a', 1)), aborted),
      () => store.list(aborted),
      () => store.get('a', aborted),
      () => store.details('a', aborted),
      () => store.stats(aborted),
      () => store.tag('a', ['b'], aborted),
      () => store.untag(['a'], aborted),
      () => store.remove(['a'], aborted),
      () => store.diff({ snapshot: 'a' }, { snapshot: 'b' }, aborted),
      () => store.map('a', aborted),
      () => store.gc(aborted),
      () => store.check(aborted),
      () => store.repair(aborted),
      () => store.copy(['a'], { from: at('other') }, aborted),
      () => store.export('a', at('exported'), aborted),
      () => store.import(at('exported'), aborted),
      () => store.writeFile('a', at('out'), aborted),
      () => store.writeDisk('a', 0, at('out'), aborted),
    ])
      await assert.rejects(call(), (error: unknown) => error === reason, call.toString());
    assert.deepEqual(readdirSync(dir), ['a']);
  });

  it('fails with the reason of a signal that is aborted meanwhile', async () => {
    const reason = new Error('no longer wanted');
    const isReason = (error: unknown): boolean => error === reason;
    const aborting = () => {
      const controller = new AbortController();
      return { signal: controller.signal, onProgress: () => controller.abort(reason) };
    };
    const big = file('big', Buffer.from(Array.from({ length: 3 << 20 }, (_, i) => (i * i) >>> 7)));
    await assert.rejects(store.put(big, aborting()), isReason);
    assert.deepEqual(await store.list(), []);
    const { id } = await store.put(big);
    await assert.rejects(store.writeFile(id, at('out'), aborting()), isReason);
    await assert.rejects(store.copy([id], { to: at('other') }, aborting()), isReason);
    await assert.rejects(store.check({ readData: true, ...aborting() }), isReason);
    await assert.rejects(store.repair(aborting()), isReason);
    assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [], isNoted: true });
    assert.ok(!readdirSync(dir).some((name) => name === 'out'));
  });

  it('refuses what is wrong with a code, and creates nothing', async () => {
    await assert.rejects(store.put(at('nothing')), hasCode('NO_SUCH_FILE'));
    await assert.rejects(store.list(), hasCode('NO_SUCH_FILE'));
    await assert.rejects(store.export('a', at('exported')), hasCode('NO_SUCH_FILE'));
    assert.deepEqual(readdirSync(dir), []);
    await store.put(file('a', text('a', 1)), { tags: ['a'] });
    for (const [code, call] of [
      ['USAGE', () => store.put(at('a'), { tags: ['a b'] })],
      ['USAGE', () => store.put(dir)],
      ['USAGE', () => store.map('a', { maxCells: 0 })],
      ['NO_SUCH_SNAPSHOT', () => store.get('b')],
      ['NO_SUCH_SNAPSHOT', () => store.remove(['a', 'b'])],
      ['NO_SUCH_TAG', () => store.untag(['a', 'b'])],
      ['NO_SUCH_REGION', () => store.diff({ snapshot: 'a', region: 'disk0' }, { snapshot: 'a' })],
      ['USAGE', () => store.writeFile('a', at('store/x'))],
      ['USAGE', () => store.copy(['a'], { to: 'gopher://host/x' })],
      // As a program in JavaScript may call it.
      ['USAGE', () => store.copy(['a'], {} as CopyRemote)],
      ['USAGE', () => store.tag('a', 'abc' as never)],
      ['USAGE', () => store.remove('a' as never)],
    ] as const)
      await assert.rejects(call(), hasCode(code), call.toString());
    assert.equal((await store.list()).length, 1);
  });
});

describe("the library's snapshots of machines", function () {
  this.timeout(limit(60_000));
  libraryWorldOfEachTest();

  it('are restored and forked as objects, and their maps show what has changed', async () => {
    const host = await connect();
    await using machine = await host.start({
      kernel: probe('probe.bzImage'),
      memoryBytes: 32 << 20,
      name: 'web',
    });
    await machine.save();
    await using console = await machine.console();
    await console.write('fill 1 1\n');
    await console.waitFor(/^OK fill/);
    const { id } = await machine.save({ tags: ['ready'] });
    const snapshot = await host.store.get('ready');
    assert.equal(snapshot.id, id);
    const map = await snapshot.map({ maxCells: 16 });
    assert.equal(map.cells.length, 16);
    assert.ok(map.changedPages! >= 256, `${map.changedPages} pages have changed`);
    assert.ok(map.ownPages + map.sharedPages + map.zeroPages === map.pages);
    assert.ok(map.cells.some((cell) => (cell & PageClass.changed) !== 0));
    const [copy] = await host.fork(snapshot, { name: 'copy' });
    assert.ok(copy && 'machine' in copy);
    await using copied = copy.machine;
    assert.equal(copied.name, 'copy-1');
    await using restored = await host.restore(snapshot, { name: 'back', asNew: true });
    assert.equal((await restored.info()).snapshot, id);
  });
});
