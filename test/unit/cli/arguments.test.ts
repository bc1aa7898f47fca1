import assert from 'node:assert/strict';
import { firstWord, withVerb } from '../../../src/cli/arguments.js';

describe('the arguments', () => {
  it('may have common options before the verb', () => {
    assert.equal(firstWord(['ls', '--json']), 'ls');
    assert.equal(firstWord(['--store', 'stats', '--json', 'ls']), 'ls');
    assert.equal(firstWord(['--store=stats', 'ls']), 'ls');
    assert.equal(firstWord(['--json']), undefined);
    assert.equal(firstWord([]), undefined);
  });

  it('have --help in place of help VERB', () => {
    assert.deepEqual(withVerb(['help', 'start']), ['start', '--help']);
    assert.deepEqual(withVerb(['help']), ['--help']);
  });

  it('get a verb if they are in the legacy form, and only then', () => {
    assert.deepEqual(withVerb(['--memory', 'size_mib=64', '--kernel', 'path=k']), [
      'start',
      '--memory',
      'size_mib=64',
      '--kernel',
      'path=k',
    ]);
    assert.equal(withVerb(['--cpu_path', 's', '--memory_path', 's'])[0], 'restore');
    assert.equal(withVerb(['--port', '80', '--cpu_path=s', '--memory_path=s'])[0], 'restore');
    assert.equal(withVerb(['--json', '--kernel=path=k'])[0], 'start');
    for (const args of [['start', '--kernel', 'k'], ['--help'], ['--detach'], []])
      assert.deepEqual(withVerb(args), args);
  });
});
