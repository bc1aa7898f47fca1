/** Stores in places where no directory can be created. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { probe, requireKvm } from '../kvm/kvm.js';
import { MAIN, World } from './cli.js';

describe('a store below /proc, where no directory can be created', function () {
  this.timeout(120_000);
  let world: World;
  const pids: number[] = [];
  beforeEach(() => {
    world = new World();
  });
  afterEach(async () => {
    // Only SIGKILL ends a process that spins.
    for (const pid of pids.splice(0))
      try {
        process.kill(pid, 'SIGKILL');
      } catch {}
    await world.end();
  });

  /** Expects exit status 1. A command that hangs is killed and fails the test. */
  const refused = (...args: string[]): Promise<{ message: string; hint: string }> =>
    new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [MAIN, ...args, '--json'], {
        env: world.env,
        stdio: ['ignore', 'pipe', 'inherit'],
        timeout: 30_000,
        killSignal: 'SIGKILL',
      });
      let out = '';
      child.stdout.on('data', (part) => {
        out += part;
      });
      child.once('close', (status, signal) => {
        if (status === 1) resolve(JSON.parse(out).error);
        else reject(new Error(`livesnap ${args.join(' ')} ended with ${signal ?? status}: ${out}`));
      });
    });

  for (const dir of ['/proc/nope', '/proc/nope/below', '/proc/sys/nope']) {
    it(`is refused by put: ${dir}`, async () => {
      const { message, hint } = await refused('put', MAIN, '--store', dir);
      assert.match(message, /^cannot create \/proc\S*nope: no directory can be created in \/proc(\/sys)?$/);
      assert.match(hint, /another file system/);
    });
  }

  it('is refused by copy --to', async () => {
    const { id } = await world.json<{ id: string }>('put', MAIN);
    assert.match(
      (await refused('copy', id, '--to', '/proc/nope')).message,
      /^cannot create \/proc\S*: no directory can be created in \/proc$/,
    );
  });

  it('is refused by save, and the machine keeps running', async function () {
    requireKvm(this);
    const { pid } = await world.json<{ pid: number }>(
      ...['start', '--kernel', probe('probe.elf'), '--memory', '32M', '--detach', '--name', 'a'],
      ...['--store', '/proc/nope'],
    );
    pids.push(pid);
    delete world.env.LIVESNAP_STORE;
    assert.match(
      (await refused('save', 'a')).message,
      /^cannot create \/proc\S*: no directory can be created in \/proc$/,
    );
    await world.ask('a', '', /^TICK \d+ nonce=[0-9a-f]{16}$/);
    await world.json('save', 'a', '--store', world.store);
  });
});
