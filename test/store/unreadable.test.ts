/**
 * Files of a store that the disk cannot read, and links, pipes and directories in their place. Every verb fails with
 * DAMAGED and names the file, or works without it. Check and repair finish.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { GcResult } from '../../src/store/gc/gc.js';
import { Store } from '../../src/store/store.js';
import type { Problem, RepairResult, SaveResult } from '../../src/store/types.js';
import { watchedEnvironment } from '../crash/trace.js';
import { dropScratch, load, newStore, noise, save } from './scratch.js';

const child = fileURLToPath(new URL('./verbs-child.js', import.meta.url));

/** The result or the error of a verb in the child. */
interface Outcome<T> {
  readonly value?: T;
  readonly code?: string;
  readonly message?: string;
}

interface Outcomes {
  readonly check: Outcome<{ ok: boolean; problems: Problem[] }>;
  readonly checkData: Outcome<{ ok: boolean; problems: Problem[] }>;
  readonly list: Outcome<number>;
  readonly show: Outcome<unknown>;
  readonly stats: Outcome<unknown>;
  readonly load: Outcome<null>;
  readonly gcDry: Outcome<GcResult>;
  readonly gc: Outcome<GcResult>;
  readonly save: Outcome<SaveResult>;
  readonly saveFull: Outcome<SaveResult>;
  readonly tag: Outcome<null>;
}

function inChild<T>(dir: string, what: string, unreadable: string | null, fault = 'unreadable'): T {
  const env = unreadable === null ? process.env : watchedEnvironment(dir, { [fault]: unreadable });
  return JSON.parse(execFileSync(process.execPath, [child, dir, what], { env, encoding: 'utf8' }));
}

interface MadeStore {
  readonly dir: string;
  /** The snapshot whose file or pack becomes unreadable, its pack, and another snapshot. */
  readonly id: string;
  readonly pack: string;
  readonly other: string;
}

async function make(test: Mocha.Context): Promise<MadeStore> {
  const { store, dir } = newStore(test);
  const { id } = await save(store, { 'ram@0x0': noise(1, 100) }, { tag: 'mine' });
  const [pack] = readdirSync(join(dir, 'packs')) as [string];
  const other = (await save(store, { 'ram@0x0': noise(2, 40) }, { tag: 'other' })).id;
  store.close();
  return { dir, id, pack: `packs/${pack}`, other };
}

const filesOf = ({ value }: Outcome<{ problems: Problem[] }>): string[] => [
  ...new Set(value!.problems.map(({ file }) => file)),
];

async function requireLoads(dir: string, id: string, contents: Record<string, Buffer>): Promise<void> {
  const store = Store.open(dir, { write: true });
  try {
    assert.deepEqual(await load(store, id), contents);
    assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
  } finally {
    store.close();
  }
}

/** Every verb names the file, except that saves and listings succeed. */
function requireNamed(outcomes: Outcomes, file: string, snapshot: string): void {
  for (const verb of ['show', 'stats', 'load', 'gcDry', 'gc'] as const) {
    assert.equal(outcomes[verb].code, 'DAMAGED', `${verb}: ${JSON.stringify(outcomes[verb])}`);
    assert.ok(outcomes[verb].message!.includes(file), `${verb}: ${outcomes[verb].message}`);
  }
  for (const check of [outcomes.check, outcomes.checkData]) {
    assert.equal(check.value!.ok, false);
    const problem = check.value!.problems.find((one) => one.file === file);
    assert.deepEqual(problem?.snapshots, [snapshot], JSON.stringify(check.value));
  }
  assert.equal(outcomes.list.value, 2);
  assert.equal(outcomes.save.code, undefined, outcomes.save.message);
  assert.equal(outcomes.save.value!.parent, null, 'a save is full when its parent cannot be read');
}

/** Each puts something other than a plain file in the place of a file. */
const IMPOSTORS: Record<string, (path: string) => void> = {
  'a directory': (path) => {
    mkdirSync(path);
    writeFileSync(join(path, 'inside'), 'of value');
  },
  'a dangling link': (path) => symlinkSync('nowhere', path),
  'a circular link': (path) => symlinkSync(path, path),
  'a pipe': (path) => void execFileSync('mkfifo', [path]),
};

describe('a file of a store', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('that is an unreadable snapshot is named by every verb, makes saves full, and is quarantined', async function () {
    const { dir, id, other } = await make(this);
    const file = `snapshots/${id}`;
    requireNamed(inChild<Outcomes>(dir, id, file), file, id);
    const { value } = inChild<Outcome<RepairResult>>(dir, 'repair', file);
    assert.ok(
      value?.actions.some((action) => action.includes(file) && action.includes('quarantine')),
      JSON.stringify(value),
    );
    assert.deepEqual(readdirSync(join(dir, 'quarantine')), [id]);
    await requireLoads(dir, other, { 'ram@0x0': noise(2, 40) });
  });

  it('that is an unreadable pack is named by every verb that reads it, and repair finishes', async function () {
    const { dir, id, pack, other } = await make(this);
    const outcomes = inChild<Outcomes>(dir, id, pack);
    for (const verb of ['show', 'stats', 'load', 'gcDry', 'gc'] as const)
      assert.equal(outcomes[verb].code, 'DAMAGED', `${verb}: ${JSON.stringify(outcomes[verb])}`);
    for (const check of [outcomes.check, outcomes.checkData]) assert.ok(filesOf(check).includes(pack));
    const { value } = inChild<Outcome<RepairResult>>(dir, 'repair', pack);
    assert.deepEqual([...new Set(value?.lost.map(({ snapshot }) => snapshot))], [id]);
    const store = Store.open(dir, { write: true });
    assert.deepEqual(await load(store, other), { 'ram@0x0': noise(2, 40) });
    store.close();
  });

  it('that cannot be opened is damaged too: a full save works without it, and gc leaves it alone', async function () {
    const { dir, id, pack, other } = await make(this);
    const file = `snapshots/${id}`;
    requireNamed(inChild<Outcomes>(dir, id, file, 'unopenable'), file, id);
    const outcomes = inChild<Outcomes>(dir, id, pack, 'unopenable');
    for (const verb of ['show', 'stats', 'load', 'gcDry', 'gc'] as const)
      assert.equal(outcomes[verb].code, 'DAMAGED', `${verb}: ${JSON.stringify(outcomes[verb])}`);
    assert.equal(outcomes.save.code, 'DAMAGED', 'its parent cannot be read'); // a machine then saves in full
    assert.equal(outcomes.saveFull.code, undefined, outcomes.saveFull.message);
    // An unreferenced pack, and a file that the index does not list.
    const store = Store.open(dir, { write: true });
    store.remove(store.list().flatMap((snapshot) => (snapshot.id === other ? [] : [snapshot.id])));
    store.close();
    const orphan = `snapshots/${'a'.repeat(32)}`;
    for (const shut of [pack, orphan]) {
      writeFileSync(join(dir, orphan), 'cut short');
      const { gc } = inChild<Outcomes>(dir, other, shut, 'unopenable');
      // The snapshot might be pinned, and gc must then keep what it needs.
      assert.equal(gc.code, shut === orphan ? 'DAMAGED' : undefined, gc.message);
      assert.ok(existsSync(join(dir, shut)), 'it may be in use');
      const again = Store.open(dir, { write: true });
      again.remove(again.list().flatMap((snapshot) => (snapshot.id === other ? [] : [snapshot.id])));
      again.close();
    }
    inChild<Outcomes>(dir, other, null);
    for (const deleted of [pack, orphan]) assert.ok(!existsSync(join(dir, deleted)));
    await requireLoads(dir, other, { 'ram@0x0': noise(2, 40) });
  });

  it('that is an unreadable segment is reported by check, and saves and repair work without it', async function () {
    const { dir, id, other } = await make(this);
    const segment = `segments/${readdirSync(join(dir, 'segments')).sort()[0]}`;
    const outcomes = inChild<Outcomes>(dir, id, segment);
    assert.deepEqual(filesOf(outcomes.check), [segment]);
    assert.deepEqual(filesOf(outcomes.checkData), [segment]);
    for (const verb of ['show', 'stats', 'load', 'gcDry', 'gc', 'save', 'tag'] as const)
      assert.equal(outcomes[verb].code, undefined, `${verb}: ${outcomes[verb].message}`);
    assert.ok(inChild<Outcome<RepairResult>>(dir, 'repair', segment).value);
    await requireLoads(dir, other, { 'ram@0x0': noise(2, 40) });
  });

  it('that is an unreadable tag is reported by check and quarantined by repair', async function () {
    const { dir, id, other } = await make(this);
    const outcomes = inChild<Outcomes>(dir, id, 'tags/other');
    assert.deepEqual(filesOf(outcomes.check), ['tags/other']);
    for (const verb of ['show', 'stats', 'load', 'gcDry', 'gc', 'save', 'tag'] as const)
      assert.equal(outcomes[verb].code, undefined, `${verb}: ${outcomes[verb].message}`);
    const { value } = inChild<Outcome<RepairResult>>(dir, 'repair', 'tags/other');
    assert.ok(
      value?.actions.some((action) => action.includes('tags/other')),
      JSON.stringify(value),
    );
    assert.deepEqual(readdirSync(join(dir, 'quarantine')), ['other']);
    await requireLoads(dir, other, { 'ram@0x0': noise(2, 40) });
  });

  for (const [what, put] of Object.entries(IMPOSTORS)) {
    it(`that is replaced by ${what} is named by every verb and quarantined by repair`, async function () {
      const { dir, id, pack, other } = await make(this);
      const snapshot = `snapshots/${id}`;
      renameSync(join(dir, snapshot), join(dir, 'kept-snapshot'));
      put(join(dir, snapshot));
      requireNamed(inChild<Outcomes>(dir, id, null), snapshot, id);
      rmSync(join(dir, snapshot), { recursive: true });
      renameSync(join(dir, 'kept-snapshot'), join(dir, snapshot));

      renameSync(join(dir, pack), join(dir, 'kept-pack'));
      put(join(dir, pack));
      const outcomes = inChild<Outcomes>(dir, id, null);
      for (const verb of ['show', 'stats', 'load', 'gcDry', 'gc'] as const)
        assert.equal(outcomes[verb].code, 'DAMAGED', `${verb}: ${JSON.stringify(outcomes[verb])}`);
      assert.ok(filesOf(outcomes.check).includes(pack), JSON.stringify(outcomes.check));
      const store = Store.open(dir, { write: true });
      assert.deepEqual(await load(store, other), { 'ram@0x0': noise(2, 40) });
      await save(store, { more: noise(1, 50) });
      store.close();
      renameSync(join(dir, pack), join(dir, 'put-pack'));
      renameSync(join(dir, 'kept-pack'), join(dir, pack));
      rmSync(join(dir, 'put-pack'), { recursive: true });

      const impostors = [
        'packs/000000ee-0.pack',
        'packs/000000ee-1.pack',
        `snapshots/${'a'.repeat(32)}`,
        'tags/strange',
        'segments/000000dd.seg',
      ];
      for (const file of impostors) put(join(dir, file));
      const { actions, lost } = await Store.repair(dir);
      assert.deepEqual(lost, []);
      for (const file of impostors) {
        assert.ok(
          actions.some((action) => action.includes(file)),
          `${file}: ${actions.join(' ')}`,
        );
        assert.ok(!existsSync(join(dir, file)));
        assert.ok(lstatSync(join(dir, 'quarantine', file.split('/')[1]!)), file);
      }
      await requireLoads(dir, id, { 'ram@0x0': noise(1, 100) });
      assert.ok((await Store.repair(dir)).actions.every((action) => !/quarantine/.test(action)));
      await requireLoads(dir, id, { 'ram@0x0': noise(1, 100) });
    });

    it(`that the index does not list, and that is ${what}, is left alone by gc and rm`, async function () {
      const { dir, id, other } = await make(this);
      const strange = ['packs/000000ee-0.pack', `snapshots/${'a'.repeat(32)}`, 'segments/000000ef.seg'];
      for (const file of [...strange, 'tags/strange']) put(join(dir, file));
      const store = Store.open(dir, { write: true });
      await store.gc({ dryRun: true });
      await store.gc({ dryRun: false });
      store.remove([id]);
      await store.gc({ dryRun: false });
      store.stats();
      store.close();
      for (const file of strange) assert.ok(lstatSync(join(dir, file)), file);
      rmSync(join(dir, 'tags/strange'), { recursive: true, force: true });
      await requireLoads(dir, other, { 'ram@0x0': noise(2, 40) });
    });
  }
});
