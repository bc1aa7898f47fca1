import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { MessageChannel } from 'node:worker_threads';
import type { JobInput } from '../../../../src/store/worker/page-jobs.js';
import { savingRunner } from '../../../../src/store/worker/page-pool.js';

describe('the jobs of saves', () => {
  /** A job that fails, because there is no such session. */
  const read = (session: number): Promise<string> =>
    savingRunner()
      .do('packRead', { session, batch: new SharedArrayBuffer(0), count: 0 } as JobInput<'packRead'>)
      .then(
        () => 'done',
        (error: Error) => error.message,
      );

  it('run in this thread, in order, and messages are taken between two of them', async () => {
    const threads = readdirSync('/proc/self/task').length;
    const seen: string[] = [];
    const { port1, port2 } = new MessageChannel();
    port2.once('message', () => void seen.push('message'));
    const all = [1, 2, 3, 4, 5, 6].map(async (session) => {
      seen.push(await read(session));
      if (session === 1) port1.postMessage(0);
    });
    await Promise.all(all);
    port1.close();
    const failures = seen.filter((each) => each !== 'message');
    assert.deepEqual(
      failures,
      [1, 2, 3, 4, 5, 6].map((session) => failures[0]!.replace('1', String(session))),
    );
    assert.match(failures[0]!, /session 1/);
    assert(seen.includes('message') && seen.at(-1) !== 'message', seen.join());
    // Threads of earlier tests may end meanwhile.
    assert(readdirSync('/proc/self/task').length <= threads, 'no thread was started');
  });
});
