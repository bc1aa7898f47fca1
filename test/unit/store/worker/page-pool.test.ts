import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { projectRoot } from '../../../../src/native/project-root.js';

/** In a process of its own: a thread that runs the jobs of saves does so until it ends. */
function inOwnProcess(script: string): string {
  const source = `
    const pool = await import('${projectRoot}/dist/src/store/worker/page-pool.js');
    ${script}`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', source], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.equal(status, 0, stderr);
  return stdout.trim();
}

describe('a thread that runs the jobs of saves itself', () => {
  it('runs them in order, takes messages between two of them, and starts no Worker', () => {
    const seen = inOwnProcess(`
      const ran = [];
      const { port1, port2 } = new MessageChannel();
      port2.onmessage = () => { ran.push('message'); port2.close(); };
      pool.saveInThisThread((name, input) => {
        if (ran.length === 0) port1.postMessage(0);
        ran.push(input);
        if (input === 2) throw new Error('two');
        return input;
      });
      const worker = pool.pageWorker(pool.SAVING);
      const all = await Promise.allSettled([1, 2, 3, 4, 5, 6].map((input) => worker.do('packEnd', input)));
      console.log(JSON.stringify({
        inOrder: ran.filter((each) => each !== 'message'),
        isBetween: ran.includes('message') && ran.at(-1) !== 'message',
        results: all.map(({ value, reason }) => value ?? reason.message),
        batches: pool.batchesInFlight(),
        threads: (await import('node:fs')).readdirSync('/proc/self/task').length,
      }));`);
    const { threads, ...rest } = JSON.parse(seen) as Record<string, unknown> & { threads: number };
    assert.deepEqual(rest, {
      inOrder: [1, 2, 3, 4, 5, 6],
      isBetween: true,
      results: [1, 'two', 3, 4, 5, 6],
      batches: 2,
    });
    const idle = inOwnProcess(`console.log((await import('node:fs')).readdirSync('/proc/self/task').length)`);
    assert.equal(threads, Number(idle));
  });

  it('lets files go that jobs keep mapped, when no store is open', () => {
    const jobs = inOwnProcess(`
      const names = [];
      pool.saveInThisThread((name) => { names.push(name); return null; });
      pool.usePageWorkers();
      await pool.pageWorker(pool.SAVING).do('packEnd', { session: 1 });
      pool.releasePageWorkers();
      setTimeout(() => console.log(names.join()), 50);`);
    assert.equal(jobs, 'packEnd,forgetSegments');
  });
});
