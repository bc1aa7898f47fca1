/** What those who watch the host are told. */
import assert from 'node:assert/strict';
import type { HostEvent } from '../../../src/host/host-events.js';
import type { MachineFacts } from '../../../src/host/host-state.js';
import type { MachineInfo } from '../../../src/host/machine-info.js';
import type { SnapshotSummary } from '../../../src/page-stream.js';
import { Feed, type Frame } from '../../../src/server/feed.js';
import type { Job, Overview } from '../../../src/server/schemas.js';

const facts = (id: string, state: MachineFacts['state'] = 'running'): MachineFacts => ({
  ...{ id, name: id, labels: {}, pid: 1, memoryBytes: 4096, cpus: 1, state, reason: null },
  ...{ startedAt: '2026-01-01T00:00:00.000Z', failedAt: null, snapshot: null },
});

const info = (id: string, over: Partial<MachineInfo> = {}): MachineInfo => ({
  ...facts(id),
  ...{
    endsAt: null,
    saves: [],
    touchedBytes: 4096,
    cpuSeconds: 1,
    dirtyBytes: null,
    reason: undefined as never,
  },
  ...over,
});

const snapshot = (id: string): SnapshotSummary => ({ id, tags: [] }) as unknown as SnapshotSummary;

/** The host: what it tells is queued here. */
class FakeHost {
  readonly queue: HostEvent[] = [];
  infos: MachineInfo[] = [];
  readers = 0;
  looks = 0;
  statsAsked = 0;
  jobs: Job[] = [];
  failure: Error | null = null;
  #wake = () => {};

  tell(event: Omit<HostEvent, 'position'>): void {
    this.queue.push({ ...event, position: '' } as HostEvent);
    this.#wake();
  }

  async *read({ signal }: { signal?: AbortSignal | undefined } = {}): AsyncGenerator<HostEvent, never> {
    if (this.failure !== null) throw this.failure;
    this.readers++;
    try {
      for (;;) {
        const event = this.queue.shift();
        if (event !== undefined) yield event;
        else
          await new Promise<void>((resolve, reject) => {
            this.#wake = resolve;
            signal!.addEventListener('abort', () => reject(signal!.reason));
          });
      }
    } finally {
      this.readers--;
    }
  }
}

function feedOf(host: FakeHost, logLimit?: number): Feed {
  return new Feed(
    {
      events: host,
      machines: async () => {
        host.looks++;
        return host.infos;
      },
      about: {
        name: 'h',
        version: '1',
        kvm: 'KVM',
        cpus: 1,
        memoryBytes: 1,
        storeDir: '/s',
        store: 'main',
        stores: ['main'],
      },
      jobs: async () => host.jobs,
      stats: async () => {
        host.statsAsked++;
        return null;
      },
      uniqueBytes: async () => null,
      log: { fault: () => {} },
    },
    logLimit,
  );
}

/** Reads frames of a feed, one after another. */
class Reader {
  readonly #end = new AbortController();
  readonly #frames: AsyncGenerator<Frame>;

  constructor(feed: Feed, after?: string) {
    this.#frames = feed.read({ after, signal: this.#end.signal });
  }

  async next(): Promise<Frame> {
    const { value } = await this.#frames.next();
    return value as Frame;
  }

  /** The next frame that is no figures. */
  async change(): Promise<Frame> {
    for (;;) {
      const frame = await this.next();
      if (frame.event !== 'usage') return frame;
    }
  }

  async end(): Promise<void> {
    this.#end.abort(new Error('enough'));
    await this.#frames.return(undefined).catch(() => {});
  }
}

const state = (machines: MachineFacts[], snapshots: SnapshotSummary[] = []): Omit<HostEvent, 'position'> =>
  ({ type: 'state', machines, snapshots }) as Omit<HostEvent, 'position'>;

const dataOf = <T>({ data }: Frame): T => JSON.parse(data) as T;

describe('the feed of the server', () => {
  it('begins with the whole state, and tells of changes after it', async () => {
    const host = new FakeHost();
    host.infos = [info('a')];
    host.tell(state([facts('a')], [snapshot('s')]));
    const reader = new Reader(feedOf(host));
    const first = await reader.next();
    assert.equal(first.event, 'state');
    const overview = dataOf<Overview>(first);
    assert.deepEqual(
      [overview.machines.map(({ id }) => id), overview.snapshots.map(({ id }) => id)],
      [['a'], ['s']],
    );
    host.tell({ type: 'machine-paused', machine: facts('a', 'paused') } as HostEvent);
    const second = await reader.change();
    assert.equal(second.event, 'machine-paused');
    assert.equal(dataOf<{ machine: MachineFacts }>(second).machine.state, 'paused');
    host.tell({ type: 'snapshot-removed', snapshot: snapshot('s') } as HostEvent);
    assert.equal((await reader.change()).event, 'snapshot-removed');
    await reader.end();
  });

  it('tells the figures of machines, and keeps them with each change', async () => {
    const host = new FakeHost();
    host.infos = [info('a', { touchedBytes: 8192, cpuSeconds: 2, dirtyBytes: 4096 }), info('unknown')];
    host.tell(state([facts('a')]));
    const reader = new Reader(feedOf(host));
    await reader.next();
    const usage = await reader.next();
    assert.deepEqual(
      [usage.event, usage.position, dataOf(usage)],
      ['usage', null, { a: { touchedBytes: 8192, cpuSeconds: 2, dirtyBytes: 4096 } }],
    );
    host.tell({ type: 'machine-paused', machine: facts('a', 'paused') } as HostEvent);
    const { machine } = dataOf<{ machine: MachineInfo }>(await reader.change());
    assert.deepEqual([machine.touchedBytes, machine.cpuSeconds, machine.dirtyBytes], [8192, 2, 4096]);
    await reader.end();
  });

  it('tells of jobs: new ones, their progress, and those that are forgotten', async () => {
    const job = (state: Job['state'], doneBytes = 0): Job => ({
      ...{ id: 'j', kind: 'gc', subject: '', state, startedAt: '', endedAt: null },
      ...{ progress: { doneBytes, totalBytes: 9 }, result: null, problem: null },
    });
    const host = new FakeHost();
    host.jobs = [job('running')];
    host.tell(state([]));
    const feed = feedOf(host);
    const reader = new Reader(feed);
    assert.deepEqual(dataOf<Overview>(await reader.next()).jobs, [job('running')]);
    host.jobs = [job('running', 5)];
    feed.lookSoon();
    const progress = await reader.change();
    assert.deepEqual([progress.event, dataOf(progress)], ['job', { job: job('running', 5) }]);
    host.jobs = [job('done', 9)];
    assert.deepEqual(dataOf(await reader.change()), { job: job('done', 9) });
    host.jobs = [];
    feed.lookSoon();
    const removed = await reader.change();
    assert.deepEqual([removed.event, dataOf(removed)], ['job-removed', { id: 'j' }]);
    await reader.end();
  });

  it('goes on after the position that a reader knows, and begins anew after another', async () => {
    const host = new FakeHost();
    host.tell(state([facts('a')]));
    const feed = feedOf(host);
    const stays = new Reader(feed);
    const { position } = await stays.next();
    host.tell({ type: 'machine-ended', machine: facts('a') } as HostEvent);
    await stays.change();
    const knows = new Reader(feed, position!);
    assert.equal((await knows.change()).event, 'machine-ended');
    for (const after of ['', 'x-1', `${position}9`, '../..']) {
      const knowsNothing = new Reader(feed, after);
      const first = await knowsNothing.next();
      assert.equal(first.event, 'state', after);
      assert.deepEqual(dataOf<Overview>(first).machines, []);
      await knowsNothing.end();
    }
    await Promise.all([stays.end(), knows.end()]);
  });

  it('gives a reader that is too far behind the whole state', async () => {
    const host = new FakeHost();
    host.tell(state([]));
    const feed = feedOf(host, 2);
    const [stays, slow] = [new Reader(feed), new Reader(feed)];
    await Promise.all([stays.next(), slow.next()]);
    for (const id of ['a', 'b', 'c']) {
      host.tell({ type: 'machine-started', machine: facts(id) } as HostEvent);
      await stays.change();
    }
    const frame = await slow.change();
    assert.equal(frame.event, 'state');
    assert.equal(dataOf<Overview>(frame).machines.length, 3);
    await Promise.all([stays.end(), slow.end()]);
  });

  it('watches only while somebody reads, once for all, and tells what changed meanwhile', async () => {
    const host = new FakeHost();
    host.tell(state([facts('a')]));
    const feed = feedOf(host);
    const readers = [new Reader(feed), new Reader(feed)];
    const [{ position }] = (await Promise.all(readers.map((reader) => reader.next()))) as [Frame, Frame];
    assert.equal(host.readers, 1);
    await Promise.all(readers.map((reader) => reader.end()));
    await new Promise(setImmediate);
    assert.equal(host.readers, 0);
    host.tell(state([facts('b')]));
    const again = new Reader(feed, position!);
    assert.deepEqual(
      [(await again.change()).event, (await again.change()).event],
      ['machine-ended', 'machine-started'],
    );
    assert.equal(host.readers, 1);
    await again.end();
  });

  it('fails for those who read when the host cannot be looked at, and works for the next', async () => {
    const host = new FakeHost();
    host.failure = new Error('the store is damaged');
    const feed = feedOf(host);
    await assert.rejects(new Reader(feed).next(), /damaged/);
    host.failure = null;
    host.tell(state([]));
    const reader = new Reader(feed);
    assert.equal((await reader.next()).event, 'state');
    await reader.end();
  });
});
