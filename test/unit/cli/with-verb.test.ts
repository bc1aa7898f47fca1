import assert from 'node:assert/strict';
import { withVerb } from '../../../src/cli/with-verb.js';

describe('the arguments with a verb', () => {
  it('have --help in place of help VERB', () => {
    assert.deepEqual(withVerb(['help', 'start']), ['start', '--help']);
    assert.deepEqual(withVerb(['help']), ['--help']);
    assert.deepEqual(withVerb(['help', 'kill']), ['stop', '--force', '--help']);
  });

  it('have the verb in place of an alias, with the options that the alias implies', () => {
    assert.deepEqual(withVerb(['inspect', 'a']), ['show', 'a']);
    assert.deepEqual(withVerb(['delete', 'a', 'b']), ['rm', 'a', 'b']);
    assert.deepEqual(withVerb(['attach', 'web']), ['console', 'web']);
    assert.deepEqual(withVerb(['--json', 'kill', 'web']), ['--json', 'stop', '--force', 'web']);
    assert.deepEqual(withVerb(['--store', 'kill', 'kill', 'kill']), [
      ...['--store', 'kill'],
      ...['stop', '--force', 'kill'],
    ]);
    assert.deepEqual(withVerb(['save', 'delete']), ['save', 'delete']);
  });

  it('ask for the version with -v alone', () => {
    assert.deepEqual(withVerb(['-v']), ['--version']);
    assert.deepEqual(withVerb(['ls', '-v']), ['ls', '-v']);
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
