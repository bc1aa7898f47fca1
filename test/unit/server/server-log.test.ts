import assert from 'node:assert/strict';
import type { Log } from '../../../src/machine/log.js';
import { ServerLog } from '../../../src/server/server-log.js';

describe('the log of the server', () => {
  it('has equal refusals once a minute, with their number', () => {
    let nowMs = 0;
    const entries: string[] = [];
    const log = new ServerLog(
      { write: (entry: string) => entries.push(entry) } as unknown as Log,
      () => nowMs,
    );
    for (let i = 0; i < 5; i++) log.refused('401');
    log.refused('403');
    nowMs = 60_000;
    log.refused('401');
    log.refused('403');
    assert.deepEqual(entries, [
      'refused: 401',
      'refused: 403',
      'refused: 401 (5 times since the last entry)',
      'refused: 403',
    ]);
  });

  it('tells a bounded number of refusals apart', () => {
    const entries: string[] = [];
    const log = new ServerLog({ write: (entry: string) => entries.push(entry) } as unknown as Log, () => 0);
    for (let i = 0; i < 1000; i++) log.refused(`host ${i}`);
    assert.equal(entries.length, 101);
    assert.equal(entries.at(-1), 'refused: other requests');
  });
});
