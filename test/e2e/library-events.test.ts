/** The events of the library: changes that other processes make. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HostEvents } from '../../src/host/host-events.js';
import { connect, type Host, type HostEvent } from '../../src/host/index.js';
import { limit } from '../timeouts.js';
import { libraryWorldOfEachTest, type World } from './cli.js';

const textOf = (event: HostEvent): string => {
  if (event.type === 'state') return `state of ${event.machines.length} and ${event.snapshots.length}`;
  if ('machine' in event) return `${event.type} ${event.machine.name}`;
  if (event.type === 'snapshot-tagged')
    return `${event.type} +${event.addedTags.join()} -${event.removedTags.join()}`;
  return `${event.type} ${event.snapshot.tags.join()}`;
};

/** Reads events one by one. */
class Reader {
  readonly #abort = new AbortController();
  readonly #events: AsyncGenerator<HostEvent>;
  position = '';

  constructor(host: Pick<Host, 'events'>, after?: string) {
    this.#events = host.events({ after, signal: this.#abort.signal });
  }

  async next(): Promise<string> {
    const { value } = await this.#events.next();
    this.position = value.position;
    return textOf(value);
  }

  async end(): Promise<void> {
    const reason = new Error('enough');
    const waiting = this.#events.next();
    this.#abort.abort(reason);
    await assert.rejects(waiting, (error: unknown) => error === reason);
  }
}

describe('the events of snapshots', () => {
  let dir: string;
  let host: Host;
  let other: Host;
  let before: NodeJS.ProcessEnv;
  beforeEach(async () => {
    before = { ...process.env };
    dir = mkdtempSync(join(tmpdir(), 'livesnap-events-'));
    process.env.XDG_RUNTIME_DIR = dir;
    writeFileSync(join(dir, 'file'), 'something to store');
    host = await connect({ store: join(dir, 'store') });
    other = await connect({ store: join(dir, 'store') });
  });
  afterEach(() => {
    process.env = before;
    rmSync(dir, { recursive: true, force: true });
  });

  it('tell of a store that is created, and of snapshots that are saved, tagged and removed', async () => {
    const reader = new Reader(host);
    assert.equal(await reader.next(), 'state of 0 and 0');
    const { id } = await other.store.put(join(dir, 'file'), { tags: ['a'] });
    assert.equal(await reader.next(), 'snapshot-saved a');
    const second = await other.store.put(join(dir, 'file'));
    assert.equal(await reader.next(), 'snapshot-saved ');
    await other.store.tag(id, ['b']);
    assert.equal(await reader.next(), 'snapshot-tagged +b -');
    await other.store.untag(['a']);
    assert.equal(await reader.next(), 'snapshot-tagged + -a');
    await other.store.remove([second.id]);
    assert.equal(await reader.next(), 'snapshot-removed ');
    await reader.end();
  });

  it('give a reader that comes back what it has missed', async () => {
    const reader = new Reader(host);
    await reader.next();
    await reader.end();
    const { id } = await other.store.put(join(dir, 'file'), { tags: ['a'] });
    const again = new Reader(host, reader.position);
    assert.equal(await again.next(), 'snapshot-saved a');
    await again.end();
    await other.store.remove([id]);
    const third = new Reader(host, again.position);
    assert.equal(await third.next(), 'snapshot-removed a');
    await third.end();
    const all = new Reader(host, reader.position);
    assert.deepEqual([await all.next(), await all.next()], ['snapshot-saved a', 'snapshot-removed a']);
    await all.end();
  });

  it('give the whole state to a reader of an unknown position, or one that is too far behind', async () => {
    await other.store.put(join(dir, 'file'), { tags: ['a'] });
    const stranger = new Reader(host, 'x-1');
    assert.equal(await stranger.next(), 'state of 0 and 1');
    await stranger.end();
    const events = new HostEvents(host.storeDir, () => host.store.list(), 1);
    const slow = new Reader({ events: (options) => events.read(options) });
    assert.equal(await slow.next(), 'state of 0 and 1');
    const fast = new Reader({ events: (options) => events.read(options) });
    await fast.next();
    await other.store.tag('a', ['b']);
    assert.equal(await fast.next(), 'snapshot-tagged +b -');
    await other.store.tag('a', ['c']);
    assert.equal(await fast.next(), 'snapshot-tagged +c -');
    assert.equal(await slow.next(), 'state of 0 and 1', 'the log has one change, and two were missed');
    await slow.end();
    await fast.end();
  });

  it('leave the store free: it can be repaired while a reader waits', async () => {
    await other.store.put(join(dir, 'file'), { tags: ['a'] });
    const reader = new Reader(host);
    await reader.next();
    await other.store.repair();
    await other.store.tag('a', ['b']);
    assert.equal(await reader.next(), 'snapshot-tagged +b -');
    await reader.end();
  });

  it('end at once for a signal that was aborted before', async () => {
    const reason = new Error('no longer wanted');
    const events = host.events({ signal: AbortSignal.abort(reason) });
    await assert.rejects(events.next(), (error: unknown) => error === reason);
  });
});

describe('the events of machines', function () {
  this.timeout(limit(60_000));
  let world: World;
  libraryWorldOfEachTest((made) => {
    world = made;
  });

  it('tell of machines that start, pause, resume, are killed and end, and of their saves', async () => {
    const reader = new Reader(await connect());
    assert.equal(await reader.next(), 'state of 0 and 0');
    await world.start('web');
    assert.equal(await reader.next(), 'machine-started web');
    await world.json('pause', 'web');
    assert.equal(await reader.next(), 'machine-paused web');
    await world.json('resume', 'web');
    assert.equal(await reader.next(), 'machine-resumed web');
    await world.json('save', 'web', '--tag', 'x', '--then', 'pause');
    const both = [await reader.next(), await reader.next()];
    assert.deepEqual(both.sort(), ['machine-paused web', 'snapshot-saved x']);
    await world.json('stop', 'web', '--force');
    assert.equal(await reader.next(), 'machine-ended web');

    const { pid } = await world.start<{ pid: number }>('killed');
    assert.equal(await reader.next(), 'machine-started killed');
    process.kill(pid, 'SIGKILL');
    assert.equal(await reader.next(), 'machine-failed killed');
    const late = new Reader(await connect());
    assert.equal(await late.next(), 'state of 1 and 1');
    await late.end();
    await world.json('stop', 'killed');
    assert.equal(await reader.next(), 'machine-ended killed');
    await reader.end();
  });
});
