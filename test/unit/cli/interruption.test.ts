import assert from 'node:assert/strict';
import { abortedByInterruption, INTERRUPTIONS, onInterruption } from '../../../src/cli/interruption.js';

describe('an interruption', () => {
  const listeners = (): number[] => INTERRUPTIONS.map((signal) => process.listenerCount(signal));

  it('is told once, whichever signal comes first; the next one ends the process', () => {
    const before = listeners();
    const heard: string[] = [];
    onInterruption((signal) => heard.push(signal));
    process.emit('SIGTERM', 'SIGTERM');
    assert.deepEqual(heard, ['SIGTERM']);
    assert.deepEqual(listeners(), before, 'the defaults are back');
  });

  it('is not told any more if nobody listens', () => {
    const before = listeners();
    onInterruption(() => assert.fail())();
    assert.deepEqual(listeners(), before);
  });

  it('aborts a signal with an error that names it', () => {
    const signal = abortedByInterruption('the fork was cancelled');
    assert.equal(signal.aborted, false);
    process.emit('SIGHUP', 'SIGHUP');
    assert.match(signal.reason.message, /^the fork was cancelled by SIGHUP$/);
    assert.equal(signal.reason.code, 'NOT_POSSIBLE_NOW');
  });
});
