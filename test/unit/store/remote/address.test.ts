/** Tells addresses from directories of this machine. */
import assert from 'node:assert/strict';
import { requireLocal, schemeOf } from '../../../../src/store/remote/address.js';

/** Addresses in the style of scp and rsync, and the addresses that livesnap suggests for them. */
const SCP_STYLE: Record<string, string> = {
  'me@host:/srv/store': 'ssh://me@host/srv/store',
  'host:/srv/store': 'ssh://host/srv/store',
  'host:store': 'ssh://host/~/store',
  'host:~/store': 'ssh://host/~/store',
  'host:': 'ssh://host/~/',
  'me@[::1]:/srv/store': 'ssh://me@[::1]/srv/store',
  '[::1]:store': 'ssh://[::1]/~/store',
  'host:a/b:c': 'ssh://host/~/a/b:c',
  'host:/a#b?c%d': 'ssh://host/a%23b%3Fc%25d',
  'ssh:/host/store': 'ssh://ssh/host/store',
};
const PATHS = ['store', './a:b', '/a:b', '../host:/x', 'dir/a:b', 'me@host', ':a', '', '.'];

describe('the name of a store', () => {
  for (const [text, address] of Object.entries(SCP_STYLE))
    it(`refuses ${text} and suggests ${address}`, () => {
      assert.throws(
        () => schemeOf(text),
        (error: { code: string; message: string; hint: string }) => {
          assert.equal(error.code, 'USAGE');
          assert.ok(error.message.includes(JSON.stringify(text)), error.message);
          assert.ok(error.hint.startsWith(`Write ${address}, or ./${text} `), error.hint);
          return true;
        },
      );
      assert.equal(schemeOf(`./${text}`), null, 'the hint is true');
    });

  it('is a path when it has no scheme and no host', () => {
    for (const path of PATHS) {
      assert.equal(schemeOf(path), null, path);
      assert.equal(requireLocal(path), path);
    }
  });

  it('is a path on Windows when it begins with a drive', () => {
    const platform = Object.getOwnPropertyDescriptor(process, 'platform')!;
    Object.defineProperty(process, 'platform', { ...platform, value: 'win32' });
    try {
      for (const path of ['C:\\Users\\me\\store', 'd:/store', 'C:store']) {
        assert.equal(requireLocal(path), path);
        assert.equal(schemeOf(path), null, path);
      }
      assert.throws(() => requireLocal('host:store'), { code: 'USAGE' });
    } finally {
      Object.defineProperty(process, 'platform', platform);
    }
    assert.throws(() => requireLocal('C:store'), { code: 'USAGE' }, 'elsewhere it is a host');
  });

  it('has its scheme in lower case', () => {
    assert.equal(schemeOf('SSH://host/dir'), 'ssh');
    assert.equal(schemeOf('s3://bucket'), 's3');
    assert.equal(schemeOf('git+ssh://host/dir'), 'git+ssh');
  });

  it('must be a local directory for most verbs', () => {
    for (const address of [...Object.keys(SCP_STYLE), 'ssh://host/dir', 'https://host/', 's3://bucket'])
      assert.throws(() => requireLocal(address), { code: 'USAGE', message: /not a directory/ }, address);
  });
});
