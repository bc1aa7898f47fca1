import assert from 'node:assert/strict';
import { ConsoleCounters, countBetween } from '../../../../src/vmm/console/console-counters.js';

describe('ConsoleCounters', () => {
  it('count correctly beyond 2^32', () => {
    const counters = new ConsoleCounters();
    new Uint32Array(counters.shared).fill(0xffffffff);
    counters.addOutputMessage();
    counters.addInputBytes(5);
    assert.deepEqual([counters.outputMessages, counters.inputBytes], [0, 4]);
    assert.equal(countBetween(0xfffffffe, counters.inputBytes), 6);
  });
});
