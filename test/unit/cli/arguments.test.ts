import assert from 'node:assert/strict';
import { asksForHelp, asksForJson, asksForVersion, firstWord } from '../../../src/cli/arguments.js';

describe('the arguments', () => {
  it('may have common options before the verb', () => {
    assert.equal(firstWord(['ls', '--json']), 'ls');
    assert.equal(firstWord(['--store', 'stats', '--json', 'ls']), 'ls');
    assert.equal(firstWord(['--store=stats', 'ls']), 'ls');
    assert.equal(firstWord(['-q', 'ls']), 'ls');
    assert.equal(firstWord(['--json']), undefined);
    assert.equal(firstWord([]), undefined);
  });

  it('ask for help, the version or JSON before -- only', () => {
    for (const [asks, ...options] of [
      [asksForHelp, '-h', '--help'],
      [asksForVersion, '-V', '--version'],
      [asksForJson, '--json'],
    ] as const)
      for (const option of options) {
        assert.ok(asks(['save', option]), option);
        assert.ok(!asks(['save', '--', option]), option);
      }
  });
});
