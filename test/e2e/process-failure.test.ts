/** Machines whose process fails: the reason is in the log and in every error. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { probe, requireKvm } from '../kvm/kvm.js';
import { ending, hearing, World } from './cli.js';
import { processesOf } from './processes.js';

const startOf = (name: string, ...more: string[]): string[] => [
  ...['start', '--kernel', probe('probe.elf'), '--memory', '32M', '--name', name],
  ...more,
];

describe('a machine whose process fails', function () {
  this.timeout(120_000);
  let world: World;
  before(function () {
    requireKvm(this);
  });
  beforeEach(() => {
    world = new World();
    // A bug in the machine's process, triggered by SIGUSR2.
    const preload = join(world.dir, 'bug.mjs');
    writeFileSync(
      preload,
      `import { isMainThread } from 'node:worker_threads';
       if (isMainThread && process.argv[1]?.endsWith('machine-process.js'))
         process.on('SIGUSR2', () => { throw new TypeError('a bug in the process'); });`,
    );
    world.env.NODE_OPTIONS = `--import=${preload}`;
  });
  afterEach(() => world.end());

  it('has the reason in its log and in the errors of other commands', async () => {
    const { pid, startedAt } = await world.json<{ pid: number; startedAt: string }>(
      ...startOf('a', '--detach'),
    );
    process.kill(pid, 'SIGUSR2');
    while (processesOf('a', world.runDir).length > 0) await sleep(10);
    const log = readFileSync(join(world.runDir, 'livesnap/a/log'), 'utf8');
    assert.match(log, /TypeError: a bug in the process\n +at .*bug\.mjs/);
    assert.match(log, /the process ends: internal error: a bug in the process\n$/);
    const error = await world.fails(1, 'MACHINE_GONE', ['save', 'a']);
    assert.equal(error.message, 'the machine a failed: internal error: a bug in the process');
    const [row] = await world.json<Record<string, unknown>[]>('ps');
    assert.equal(row!.state, 'failed');
    const failedMs = Date.parse(row!.failedAt as string);
    assert(failedMs >= Date.parse(startedAt) && failedMs <= Date.now(), `${row!.failedAt}`);
    await world.json('stop', 'a');
  });

  it('ends the command in the foreground with the reason', async () => {
    const starting = world.spawn(...startOf('a'));
    const ended = ending(starting);
    await hearing(starting, 'stdout', /TICK/);
    process.kill(processesOf('a', world.runDir)[0]!, 'SIGUSR2');
    const { status, stderr } = await ended;
    assert.equal(status, 1);
    assert.match(stderr, /livesnap: the machine a failed: internal error: a bug in the process\n/);
  });

  it('ends start with the reason if the failure comes early', async () => {
    writeFileSync(
      join(world.dir, 'bug.mjs'),
      `import { isMainThread } from 'node:worker_threads';
       if (isMainThread && process.argv[1]?.endsWith('machine-process.js'))
         throw new TypeError('an early bug');`,
    );
    const error = await world.fails(1, 'MACHINE_FAILED', startOf('a', '--detach'));
    assert.match(error.hint, /^Its log ends with: TypeError: an early bug$/);
    assert.deepEqual(world.machines(), []);
  });
});
