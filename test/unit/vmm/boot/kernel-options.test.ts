import assert from 'node:assert/strict';
import { withKernelOptions } from '../../../../src/vmm/boot/kernel-options.js';

describe('withKernelOptions', () => {
  for (const [cmdline, expected] of [
    ['quiet', 'quiet a b=1'],
    ['', 'a b=1'],
    ['quiet x--y -- init args', 'quiet x--y a b=1 -- init args'],
    ['-- -v', 'a b=1 -- -v'],
    ['quiet --', 'quiet a b=1 --'],
  ] as const) {
    it(`adds options for the kernel, not for init, to "${cmdline}"`, () => {
      assert.equal(withKernelOptions(cmdline, ['a', 'b=1']), expected);
    });
  }

  it('changes nothing without options', () => {
    assert.equal(withKernelOptions(' a  -- b ', []), ' a  -- b ');
  });
});
