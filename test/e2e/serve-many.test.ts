/** Fifty machines by way of the server, while its jobs run and its processes are killed. */
import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { probe } from '../kvm/kvm.js';
import { limit } from '../timeouts.js';
import { type World, worldOfEachTest } from './cli.js';
import { gone } from './processes.js';
import { Serving } from './serving.js';

const MACHINES = 50;
const WAIT = { prefer: 'wait' };

interface Machine {
  readonly id: string;
  readonly name: string;
  readonly pid: number;
  readonly state: string;
}

interface Job {
  readonly id: string;
  readonly kind: string;
  readonly state: string;
}

describe('livesnap serve with many machines', function () {
  this.timeout(limit(600_000));
  let world: World;
  let server: Serving;
  worldOfEachTest((made) => {
    world = made;
  });
  afterEach(async () => {
    await server?.end('SIGKILL');
  });

  /** Does `work` for each, a few at a time. */
  async function each<T>(all: readonly T[], work: (one: T) => Promise<unknown>): Promise<void> {
    const left = [...all];
    const lane = async (): Promise<void> => {
      for (let one = left.shift(); one !== undefined; one = left.shift()) await work(one);
    };
    await Promise.all(Array.from({ length: 4 }, lane));
  }

  const machines = async (): Promise<Machine[]> => (await server.ask<Machine[]>('/v1/machines')).body;
  const ok = async (path: string, asked: Parameters<Serving['ask']>[1], status: number): Promise<void> => {
    const answer = await server.ask(path, asked);
    assert.equal(answer.status, status, `${path}: ${JSON.stringify(answer.body)}`);
  };

  /** The processes of jobs of this world. */
  const jobProcesses = (): number[] =>
    readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => {
        try {
          return readlinkSync(`/proc/${pid}/fd/3`).startsWith(join(world.runDir, 'livesnap/.jobs'));
        } catch {
          return false;
        }
      });

  it('starts, saves, forks, restores and stops them, and loses nothing when processes are killed', async () => {
    server = await Serving.start(world);
    await world.json('put', probe('probe.bzImage'), '--tag', 'kernel');
    const names = Array.from({ length: MACHINES - 10 }, (_, i) => `m-${i}`);
    const work = (async () => {
      // Jobs of the store run beside the machines, until they are ended below.
      for (let i = 0; i < 6; i++) {
        await server.ask(`/v1/store/${i % 2 === 0 ? 'gc' : 'check'}`, {
          body: i % 2 === 0 ? {} : { readData: true },
          headers: WAIT,
        });
      }
    })();
    await each(names, (name) =>
      ok('/v1/machines', { body: { kernel: { snapshot: 'kernel' }, memoryBytes: 16 << 20, name } }, 201),
    );
    await each(names, (name) =>
      ok(`/v1/machines/${name}/save`, { body: { tags: [`t-${name}`] }, headers: WAIT }, 200),
    );
    await ok('/v1/machines/m-0/fork', { body: { count: 5, name: 'f' }, headers: WAIT }, 200);
    await each([1, 2, 3, 4, 5], (i) => ok(`/v1/snapshots/t-m-${i}/restore`, { body: { asNew: true } }, 201));
    await work;
    assert.equal((await machines()).length, MACHINES);
    assert((await machines()).every(({ state }) => state === 'running'));

    // The server, a machine and a job are killed in the midst of their work.
    const victim = (await machines()).find(({ name }) => name === 'm-7')!;
    const check = await server.ask<Job>('/v1/store/check', { body: { readData: true } });
    const saves = names
      .slice(0, 8)
      .map((name) =>
        server.ask(`/v1/machines/${name}/save`, { body: { tags: [`late-${name}`] } }).catch(() => null),
      );
    process.kill(victim.pid, 'SIGKILL');
    for (const pid of jobProcesses()) process.kill(pid, 'SIGKILL');
    await Promise.all(saves);
    await server.end('SIGKILL');
    server = await Serving.start(world);
    await gone(victim.pid);
    const found = await machines();
    assert.equal(found.length, MACHINES, 'all is found again');
    assert.deepEqual(
      found.filter(({ state }) => state !== 'running').map(({ name }) => name),
      ['m-7'],
    );
    const job = await server.ask<Job>(`/v1/jobs/${check.body.id}`);
    assert(['failed', 'done'].includes(job.body.state), job.body.state);
    const tags = (await server.ask<{ tags: string[] }[]>('/v1/snapshots')).body.flatMap((each) => each.tags);
    for (const name of names) assert(tags.includes(`t-${name}`), name);
    const whole = await server.ask<{ ok: boolean }>('/v1/store/check', {
      body: { readData: true },
      headers: WAIT,
    });
    assert.equal(whole.body.ok, true);

    // An idle server asks nobody.
    await sleep(500);
    const before = server.cpuSeconds();
    await sleep(4000);
    const used = (server.cpuSeconds() - before) / 4;
    console.log(
      `      idle: ${(used * 100).toFixed(1)}% of a core, ${Math.round(server.memoryBytes() / 2 ** 20)} MiB`,
    );

    await each(found, ({ id }) => ok(`/v1/machines/${id}`, { method: 'DELETE' }, 204));
    assert.deepEqual(await machines(), []);
    for (const { id } of (await server.ask<Job[]>('/v1/jobs')).body)
      await ok(`/v1/jobs/${id}`, { method: 'DELETE' }, 204);
    await server.end();
    assert.deepEqual(readdirSync(join(world.runDir, 'livesnap')).sort(), ['.jobs', '.serve']);
    assert.deepEqual(readdirSync(join(world.runDir, 'livesnap/.jobs')), []);
    assert.deepEqual(readdirSync(join(world.runDir, 'livesnap/.serve')), ['lock']);
    assert.deepEqual(jobProcesses(), []);
  });
});
