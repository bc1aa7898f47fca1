import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import {
  baseDirectory,
  defaultStore,
  largeTemporaryDirectory,
  runRoot,
  temporaryDirectory,
  userId,
} from '../../src/environment.js';
import { onNote } from '../../src/notes.js';
import { checkoutFor } from '../other-user.js';

describe('the environment', () => {
  it('puts the default store into the XDG data directory, else below the home directory', () => {
    assert.equal(defaultStore({ XDG_DATA_HOME: '/data', HOME: '/home/a' }), '/data/livesnap');
    assert.equal(defaultStore({ HOME: '/home/a' }), '/home/a/.local/share/livesnap');
    assert.equal(defaultStore({ XDG_DATA_HOME: '', HOME: '/home/a' }), '/home/a/.local/share/livesnap');
    assert.equal(baseDirectory('XDG_CACHE_HOME', { HOME: '/home/a' }), '/home/a/.cache');
  });

  it('puts run directories into XDG_RUNTIME_DIR, else where only this user may write', () => {
    const own = userId() === 0 ? '/run/livesnap' : `/tmp/livesnap-${userId()}`;
    assert.equal(runRoot({ XDG_RUNTIME_DIR: '/run/user/7' }), '/run/user/7/livesnap');
    assert.equal(runRoot({}), own);
    assert.equal(runRoot({ XDG_RUNTIME_DIR: 'run', TMPDIR: 'tmp' }), own);
  });

  it('finds the temporary directory as Node does, but never a relative one', () => {
    assert.equal(temporaryDirectory({ TMPDIR: '/a', TMP: '/b' }), '/a');
    assert.equal(temporaryDirectory({ TMPDIR: 'a', TMP: '', TEMP: '/c' }), '/c');
    assert.equal(temporaryDirectory({}), '/tmp');
    assert.equal(largeTemporaryDirectory({ TMPDIR: '/a', TMP: '/b' }), '/a');
    assert.equal(largeTemporaryDirectory({}), '/var/tmp');
  });

  it('treats an empty or relative HOME as unset, and uses the home directory from /etc/passwd', () => {
    const listed = defaultStore({});
    assert.match(listed, /^\/.*\/livesnap$/);
    assert.equal(defaultStore({ HOME: '' }), listed);
    assert.equal(defaultStore({ HOME: 'here' }), listed);
  });

  it('gives one note for each variable that it ignores', () => {
    const sentences: string[] = [];
    onNote((sentence) => sentences.push(sentence));
    try {
      const env = { XDG_DATA_HOME: 'data', HOME: '/home/a' };
      for (let i = 0; i < 3; i++) assert.equal(defaultStore(env), '/home/a/.local/share/livesnap');
      assert.deepEqual(sentences, ['XDG_DATA_HOME is ignored: "data" is not an absolute path']);
    } finally {
      onNote(null);
    }
  });

  it('has no default store for a user without HOME and without an entry in /etc/passwd', function () {
    if (userId() !== 0) {
      process.stderr.write('    SKIPPED, not tested: only root can become another user\n');
      this.skip();
    }
    const module = join(checkoutFor(12345), 'dist/src/environment.js');
    const script = `
      process.setgid(12345); process.setuid(12345);
      const { defaultStore, runRoot } = await import(${JSON.stringify(module)});
      console.log(runRoot({}), defaultStore({ HOME: '/h' }));
      try { defaultStore({}); } catch ({ code, hint }) { console.log(code, hint); }`;
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    assert.equal(
      stdout,
      '/tmp/livesnap-12345 /h/.local/share/livesnap\n' +
        'USAGE Set HOME, or name the store with --store DIR or LIVESNAP_STORE.\n',
      stderr,
    );
  });
});
