import assert from 'node:assert/strict';
import { styleOfState } from '../../../src/cli/machine-state.js';

describe('the style of a state', () => {
  it('tells apart what runs, what waits for the user and what is wrong', () => {
    const states = ['running', 'paused', 'failed', 'gone', 'unresponsive', 'starting'] as const;
    assert.deepEqual(states.map(styleOfState), ['good', 'caution', 'bad', 'bad', 'bad', null]);
  });
});
