/** A store with hundreds of snapshots, as an agent or a schedule leaves it: listed, filtered and thinned. */
import assert from 'node:assert/strict';
import { mock } from 'node:test';
import { Store } from '../../src/store/store.js';
import { noise } from '../store/scratch.js';
import { World, worldOfEachTest } from './cli.js';
import { writeFile } from './stored-files.js';

interface Listed {
  readonly id: string;
  readonly tags: string[];
  readonly vm: string;
  readonly labels: Record<string, string>;
  readonly createdAt: string;
  readonly memoryBytes: number;
}

interface Forgotten {
  readonly groups: {
    readonly title: string;
    readonly kept: { readonly id: string; readonly reasons: string[] }[];
    readonly removed: { readonly id: string }[];
  }[];
  readonly gc: { readonly freedBytes: number } | null;
}

const NAMES = ['log', 'data', 'image', 'notes'];
const COUNT = 200;
/** Four snapshots of each name a day. */
const INTERVAL_MS = 3_600_000 * 1.5;

/** Puts files as if they had been put at regular times until now. */
async function fill(world: World): Promise<void> {
  const nowMs = Date.now();
  const store = Store.open(world.store, { write: true, create: true });
  mock.timers.enable({ apis: ['Date'] });
  try {
    for (let i = 0; i < COUNT; i++) {
      mock.timers.setTime(nowMs - (COUNT - i) * INTERVAL_MS);
      const name = NAMES[i % NAMES.length]!;
      const bytes = Buffer.concat([noise(i % NAMES.length, 20), noise(1000 + i, 1 + (i % 5))]);
      const tags = [`run-${i}`, ...(i % 50 === 7 ? [`release-${i}`] : [])];
      await store.put(writeFile(world, name, bytes), { tags: i % 3 === 0 ? [] : tags, name });
    }
    await store.tidy();
  } finally {
    mock.timers.reset();
    store.close();
  }
}

const idsOf = (all: readonly { readonly id: string }[]): string[] => all.map(({ id }) => id);

describe('many snapshots', function () {
  this.timeout(300_000);

  it('are listed, filtered, thinned by a policy, and their data is freed', async () => {
    const world = new World();
    try {
      await fill(world);
      const ls = (...args: string[]): Promise<Listed[]> => world.json<Listed[]>('ls', ...args);
      const all = await ls();
      assert.equal(all.length, COUNT);
      assert.deepEqual(
        all.map(({ createdAt }) => createdAt),
        all.map(({ createdAt }) => createdAt).sort(),
      );
      const lines = (await world.run(['ls', '--quiet', '-r', '--limit', '3'])).stdout.trim().split('\n');
      assert.deepEqual(lines, idsOf(all).slice(-3).reverse());
      assert.deepEqual(
        idsOf(await ls('--filter', 'name=lo?', '--filter', 'name=notes', '--filter', 'untagged')),
        idsOf(all.filter(({ vm, tags }) => (vm === 'log' || vm === 'notes') && tags.length === 0)),
      );
      const releases = await ls('--filter', 'tag=release-*');
      assert.deepEqual(
        releases.map(({ tags }) => tags[0]),
        ['release-7', 'release-107', 'release-157'],
      );
      const recent = await ls('--since', '1d');
      assert.deepEqual(idsOf(recent), idsOf(all.slice(-15)));
      const until = all[100]!.createdAt;
      assert.deepEqual(
        idsOf(await ls('--until', new Date(until).toISOString().slice(0, 19).concat('Z'))),
        idsOf(all.slice(0, 100)),
      );
      const largest = await ls('--sort', 'size', '--limit', '40');
      assert.ok(largest.every(({ memoryBytes }) => memoryBytes === 25 * 4096));
      const table = await world.run(['ls', '--sort', 'name', '--limit', '2']);
      assert.match(
        table.stdout,
        /^ID +TAGS +KIND +NAME +PARENT +CREATED +SIZE +STORED\n[0-9a-f]{12} .* data /,
      );

      // The policy, computed from the list: the newest of each of 3 local days that have one, and the last 2.
      const rules = ['--keep-last', '2', '--keep-daily', '3', '--keep-tag', 'release-*'];
      const expected = NAMES.flatMap((name) => {
        const own = all.filter(({ vm }) => vm === name).reverse();
        const day = ({ createdAt }: Listed): string => new Date(createdAt).toDateString();
        const newest = own.filter((one, i) => i === 0 || day(one) !== day(own[i - 1]!)).slice(0, 3);
        const tagged = own.filter(({ tags }) => tags.some((tag) => tag.startsWith('release-')));
        return [...own.slice(0, 2), ...newest, ...tagged];
      });
      const kept = [...new Set(idsOf(expected))].sort();
      const would = await world.json<Forgotten>('forget', ...rules, '--dry-run');
      assert.deepEqual(
        would.groups.map(({ title }) => title),
        [...NAMES].sort().map((name) => `file ${name}`),
      );
      assert.deepEqual(would.groups.flatMap((group) => idsOf(group.kept)).sort(), kept);
      assert.deepEqual(would.groups[0]!.kept[0]!.reasons, ['last', 'daily']);
      assert.equal((await ls()).length, COUNT);
      const { storedBytes: before } = await world.json<{ storedBytes: number }>('stats');
      const done = await world.json<Forgotten>('forget', ...rules, '--prune');
      assert.deepEqual(done.groups, would.groups);
      assert.ok(done.gc!.freedBytes > 0);
      assert.deepEqual(idsOf(await ls()).sort(), kept);
      const { storedBytes: after } = await world.json<{ storedBytes: number }>('stats');
      assert.ok(after < before / 2, `${before} and then ${after} bytes`);
      assert.deepEqual(await world.json('check', '--read-data'), { ok: true, problems: [] });
      const again = await world.run(['forget', ...rules]);
      assert.match(again.stdout, new RegExp(`^Removed 0 snapshots and kept ${kept.length}$`, 'm'));

      // By patterns of tags: two tags of a release name one snapshot.
      assert.equal(
        (await world.fails(2, 'HAS_OTHER_TAGS', ['rm', 'release-*'])).message,
        'the snapshot tagged release-107 also has the tag run-107',
      );
      assert.equal(
        (await world.fails(3, 'NO_SUCH_TAG', ['rm', 'relaese-*'])).hint,
        'livesnap ls lists the tags.',
      );
      const runs = ['run-7', 'run-107', 'run-157'];
      const listed = await world.run(['rm', 'release-*', ...runs, '--dry-run']);
      assert.match(listed.stdout, /^Would remove [0-9a-f]{32} with the tags release-7, run-7$/m);
      const removed = await world.json<{ removed: unknown[] }>('rm', 'release-*', ...runs);
      assert.equal(removed.removed.length, 3);
      assert.equal((await ls()).length, kept.length - 3);
    } finally {
      await world.end();
    }
  });

  describe('of machines', () => {
    let world: World;
    worldOfEachTest((next) => {
      world = next;
    });

    it('are selected by labels, and a machine goes on when the snapshot that it came from is removed', async () => {
      await world.start('web', ['--label', 'course=os', '--label', 'student=ada']);
      await world.start('db');
      const ps = (...args: string[]): Promise<{ name: string }[]> => world.json('ps', ...args);
      assert.deepEqual(
        (await ps('--filter', 'label=course')).map(({ name }) => name),
        ['web'],
      );
      assert.deepEqual(
        (await ps('--filter', 'name=d*', '--filter', 'state=running')).map(({ name }) => name),
        ['db'],
      );
      assert.deepEqual(await ps('--filter', 'state=paused'), []);
      const ids: string[] = [];
      for (const name of ['web', 'web', 'web', 'db'])
        ids.push((await world.json<{ id: string }>('save', name)).id);
      const selected = await world.json<Listed[]>('ls', '--filter', 'label=course=os');
      assert.deepEqual(idsOf(selected), ids.slice(0, 3));
      assert.deepEqual(selected[0]!.labels, { course: 'os', student: 'ada' });
      const children = await world.json<Listed[]>('ls', '--filter', `parent=${ids[0]!.slice(0, 12)}`);
      assert.deepEqual(idsOf(children), [ids[1]]);

      await world.json('restore', ids[0]!, '--name', 'again', '--detach');
      const forget = [
        'forget',
        '--filter',
        'label=course',
        '--group-by',
        'label:student',
        '--keep-last',
        '1',
      ];
      const ran = await world.run([...forget, '--prune']);
      assert.equal(ran.status, 0, ran.stderr);
      assert.match(ran.stdout, /^student=ada\nID /);
      assert.match(ran.stdout, new RegExp(`^${ids[2]!.slice(0, 12)} .* keep +last$`, 'm'));
      assert.match(ran.stdout, /^Removed 2 snapshots and kept 1\nFreed /m);
      assert.match(
        ran.stderr,
        new RegExp(`^again was last saved to or restored from ${ids[0]!.slice(0, 12)}\\.`, 'm'),
      );
      assert.deepEqual(idsOf(await world.json<Listed[]>('ls')).sort(), [ids[2]!, ids[3]!].sort());
      await world.ask('again', 'sum 1', /^SUM [0-9a-f]{16}$/);
      await world.json('stop', 'again', 'web', 'db', '--force');
      await world.json('gc');
      assert.deepEqual(await world.json('check', '--read-data'), { ok: true, problems: [] });
    });
  });
});
