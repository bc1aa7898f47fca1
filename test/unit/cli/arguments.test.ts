import assert from 'node:assert/strict';
import { firstWord, withVerb } from '../../../src/cli/arguments.js';

describe('arguments', () => {
  it('finds the verb behind the options that may precede it', () => {
    assert.equal(firstWord(['ls', '--json']), 'ls');
    assert.equal(firstWord(['--store', 'stats', '--json', 'ls']), 'ls');
    assert.equal(firstWord(['--store=stats', 'ls']), 'ls');
    assert.equal(firstWord(['--json']), undefined);
    assert.equal(firstWord([]), undefined);
  });

  it('reads help for a verb as the verb’s --help', () => {
    assert.deepEqual(withVerb(['help', 'start']), ['start', '--help']);
    assert.deepEqual(withVerb(['help']), ['--help']);
  });

  it('gives the original’s arguments a verb, and no others', () => {
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
