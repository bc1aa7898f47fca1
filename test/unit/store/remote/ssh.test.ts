/** Addresses of ssh remotes, and the arguments of ssh that they become. */
import assert from 'node:assert/strict';
import { parseSshAddress, sshArguments } from '../../../../src/store/remote/ssh.js';

describe('an ssh address', () => {
  it('consists of user, host, port and directory', () => {
    assert.deepEqual(parseSshAddress('ssh://me@host.example:2222/srv/store'), {
      host: 'me@host.example',
      port: '2222',
      dir: '/srv/store',
    });
    assert.equal(parseSshAddress('ssh://h/a%23b%3Fc%25').dir, '/a#b?c%');
  });

  it('is quoted for the remote shell', () => {
    assert.deepEqual(sshArguments(parseSshAddress("ssh://host/a'b $(c)")), [
      '--',
      'host',
      "livesnap serve-store --store '/a'\\''b $(c)'",
    ]);
    assert.deepEqual(
      sshArguments(parseSshAddress('ssh://h/~/my store')).at(-1),
      'livesnap serve-store --store "$HOME"/\'my store\'',
    );
  });

  for (const [address, words] of Object.entries({
    // ssh takes IPv6 addresses without brackets.
    'ssh://[::1]/s': ['--', '::1'],
    'ssh://me@[2001:db8::7]:2222/s': ['-p', '2222', '--', 'me@2001:db8::7'],
    'ssh://host:22/s': ['-p', '22', '--', 'host'],
    'ssh://host:/s': ['--', 'host'],
    'ssh://my_host.example/s': ['--', 'my_host.example'],
    'ssh://h%C3%B4te/s': ['--', 'hôte'],
    'ssh://a%40b@host/s': ['--', 'a@b@host'],
  }))
    it(`${address} becomes ssh ${words.join(' ')}`, () => {
      assert.deepEqual(sshArguments(parseSshAddress(address)).slice(0, -1), words);
    });

  // A URL would drop these parts, and name another store.
  for (const cut of ['ssh://h/dir#x', 'ssh://h/dir?x', 'ssh://h/dir#', 'ssh://h/dir?', 'ssh://h/d\tir'])
    it(`${JSON.stringify(cut)} is refused with a hint about percent-encoding`, () => {
      assert.throws(() => parseSshAddress(cut), { code: 'USAGE', hint: /%23/ });
    });

  for (const bad of [
    'ssh://h/%zz',
    'ssh://%zz@h/dir',
    'ssh://h/%',
    'ssh://h/a%00b',
    'ssh://a%0ab@h/dir',
    'ssh://h/dir ',
    'ssh://',
    'ssh:///dir',
    'ssh://-oProxyCommand=x/dir',
    'ssh://host',
    'ssh://me:secret@host/dir',
    'ssh://-x@host/dir',
    'ssh://me@-host/dir',
    'ssh://%2DoProxyCommand=x/dir',
    'ssh://%2dx@host/dir',
    'ssh://a%20b/dir',
    'ssh://a%22b/dir',
    'ssh://a%24(x)/dir',
    'ssh://a%40b/dir',
    "ssh://a'b@host/dir",
    'ssh://a;b@host/dir',
    'ssh://host:0/dir',
    'ssh://host:65536/dir',
    'ssh://host:x/dir',
    'ssh://::1/dir',
    'ssh://[::1/dir',
    'ssh://[x]/dir',
  ])
    it(`${JSON.stringify(bad)} is refused`, () => {
      assert.throws(() => parseSshAddress(bad), { code: 'USAGE' });
    });
});
