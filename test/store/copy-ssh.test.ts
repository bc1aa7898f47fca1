/** Copies over ssh, with a script in place of ssh. Copies through a real sshd: test/e2e/copy-ssh.test.ts. */
import assert from 'node:assert/strict';
import { copySnapshots } from '../../src/store/remote/copy.js';
import { copy, silent, smallDisk } from './copying.js';
import { remoteCommandHere, useSsh } from './fake-ssh.js';
import { dropScratch, newStore, noise, save, scratchDir } from './scratch.js';

describe('a copy over ssh', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('reports a full disk of the destination', async function () {
    const { store: here, dir } = newStore(this);
    await save(here, { x: noise(6, 9000) }, { tag: 'a' });
    const small = smallDisk(this, 12 << 20);
    useSsh(this, remoteCommandHere);
    await assert.rejects(copy(dir, 'to', `ssh://host${small}`, ['a']), {
      code: 'NO_SPACE',
      message: /^remote: .*full/,
    });
  });

  it('reports a remote that does not speak the protocol, although ssh does not exit', async function () {
    this.timeout(20_000);
    const { store: here, dir } = newStore(this);
    await save(here, { x: noise(6, 10) }, { tag: 'a' });
    // An ssh that is killed exits with 255, as one that could not reach the host.
    useSsh(this, "trap 'kill $!; exit 255' TERM; echo Welcome to this host; sleep 60 >&- & wait");
    await assert.rejects(copy(dir, 'to', 'ssh://host/store', ['a']), {
      code: 'REMOTE_FAILED',
      message: /does not speak the copy protocol/,
    });
  });

  it('passes on what ssh prints in lines of bounded length, and the last one in the error alone', async function () {
    const { store: here, dir } = newStore(this);
    await save(here, { x: noise(6, 10) }, { tag: 'a' });
    useSsh(
      this,
      "printf 'one\\r\\ntwo\\n' >&2; head -c 100000 /dev/zero | tr '\\0' x >&2; printf '\\nlast' >&2; exit 255",
    );
    const lines: string[] = [];
    await assert.rejects(
      copySnapshots({
        ...silent,
        ...{ storeDir: dir, direction: 'to', remote: 'ssh://host/store', refs: ['a'] },
        onNotice: (line) => void lines.push(line),
      }),
      { code: 'REMOTE_FAILED', message: 'ssh could not reach host: last' },
    );
    assert.deepEqual(lines.slice(0, 2), ['one', 'two']);
    const long = lines.slice(2);
    assert.equal(long.join(''), 'x'.repeat(100_000));
    assert.ok(long.every((line) => line.length <= 4096));
  });

  it('passes on the last line that ssh prints, too, if ssh does not fail', async function () {
    const { store: here, dir } = newStore(this);
    await save(here, { x: noise(6, 10) }, { tag: 'a' });
    const there = scratchDir(this);
    useSsh(this, `echo 'Use this host with care' >&2; ${remoteCommandHere}`);
    const lines: string[] = [];
    await copySnapshots({
      ...silent,
      ...{ storeDir: dir, direction: 'to', remote: `ssh://host${there}`, refs: ['a'] },
      onNotice: (line) => void lines.push(line),
    });
    assert.deepEqual(lines, ['Use this host with care']);
  });

  it('reports a missing store of the host with a hint that fits an address', async function () {
    const { dir } = newStore(this);
    useSsh(this, remoteCommandHere);
    await assert.rejects(copy(dir, 'from', `ssh://host${scratchDir(this)}/none`, ['a']), {
      code: 'NO_SUCH_FILE',
      message: /^remote: there is no store at /,
      hint: 'Check the path.',
    });
  });
});
