import assert from 'node:assert/strict';
import { prefers } from '../../../src/machine/prefer.js';

describe('the header Prefer', () => {
  it('has a preference alone, among others, or with a value', () => {
    for (const prefer of ['wait', 'WAIT', 'wait=9', 'respond-async, wait=9', ' wait ; x=1', ['a', 'wait']])
      assert(prefers({ prefer }, 'wait'), String(prefer));
    for (const prefer of ['', 'waiting', 'no-wait', 'respond-async', 'x=wait'])
      assert(!prefers({ prefer }, 'wait'), prefer);
    assert(!prefers({}, 'respond-async'));
    assert(prefers({ prefer: 'wait=9, respond-async' }, 'respond-async'));
  });
});
