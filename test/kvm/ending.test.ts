/** Every way in which a process with a machine can end. None may hang. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { limit } from '../timeouts.js';
import { requireKvm } from './kvm.js';

const child = fileURLToPath(new URL('./machine-child.js', import.meta.url));

async function end(
  way: string,
  signal?: NodeJS.Signals,
): Promise<{ code: number | null; signal: string | null; stderr: string }> {
  const started: ChildProcess = spawn(process.execPath, [child, way], { stdio: ['ignore', 'pipe', 'pipe'] });
  let stderr = '';
  started.stderr!.on('data', (chunk) => {
    stderr += chunk;
  });
  if (signal) {
    let stdout = '';
    for await (const chunk of started.stdout!) {
      stdout += chunk;
      if (stdout.includes('READY')) break;
    }
    started.kill(signal);
  }
  const [code, killedBy] = (await once(started, 'close')) as [number | null, string | null];
  return { code, signal: killedBy, stderr };
}

describe('a process with a machine', function () {
  this.timeout(limit(60_000));
  before(function () {
    requireKvm(this);
  });

  for (const way of [
    'exit',
    'exit while paused',
    'exit during a pause',
    'stop',
    'stop while paused',
    'device thread terminated',
    'device thread throws',
    'guest reset',
    'guest halt',
  ]) {
    it(`ends at: ${way}`, async () => {
      const { code, stderr } = await end(way);
      assert.equal(code, 7, stderr);
    });
  }

  it('ends at: SIGTERM with a handler', async () => {
    assert.equal((await end('SIGTERM with a handler', 'SIGTERM')).code, 7);
  });

  for (const [way, signal] of [
    ['SIGTERM without a handler', 'SIGTERM'],
    ['SIGKILL', 'SIGKILL'],
  ] as const) {
    it(`ends at: ${way}`, async () => {
      assert.equal((await end(way, signal)).signal, signal);
    });
  }

  it('ends at: uncaught exception', async () => {
    const { code, stderr } = await end('uncaught exception');
    assert.equal(code, 1);
    assert.match(stderr, /on purpose/);
  });
});
