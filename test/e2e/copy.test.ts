/** Copies between hosts, exports and imports, through the built command line; ssh against a real sshd on loopback. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { probe, requireKvm } from '../kvm/kvm.js';
import { noise, textPages } from '../store/scratch.js';
import { MAIN, World } from './cli.js';

const COPY_KEYS = ['sentBytes', 'sentChunks', 'presentChunks'];

interface Copied {
  sentBytes: number;
  sentChunks: number;
  presentChunks: number;
}

describe('copies', function () {
  this.timeout(180_000);
  let world: World;
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  const file = (name: string, bytes: Buffer): string => {
    const path = join(world.dir, name);
    writeFileSync(path, bytes);
    return path;
  };
  const put = async (name: string, bytes: Buffer): Promise<string> =>
    (await world.json<{ id: string }>('put', file(name, bytes), '--tag', name)).id;
  const contents = async (store: string, ref: string): Promise<Buffer> => {
    const path = join(world.dir, 'got');
    await world.json('get', ref, path, '--store', store);
    return readFileSync(path);
  };

  it('to and from a directory; what the other side has does not travel', async () => {
    const bytes = Buffer.concat([noise(1, 200), textPages(2, 100)]);
    const id = await put('a', bytes);
    const other = join(world.dir, 'other');
    const first = await world.json<Copied>('copy', 'a', '--to', other);
    assert.deepEqual(Object.keys(first), COPY_KEYS);
    assert.equal(first.sentChunks, 300);
    assert.deepEqual(await world.json('copy', id.slice(0, 10), '--to', other), {
      ...{ sentBytes: 0, sentChunks: 0, presentChunks: 0 },
    });
    await put('b', Buffer.concat([bytes, noise(3, 7)]));
    const said = await world.run(['copy', 'a', 'b', '--to', other]);
    assert.match(said.stderr, /is there already\n.*: 7 of 307 chunks to send, 28 KiB/);
    const third = join(world.dir, 'third');
    await world.json('copy', 'b', '--from', other, '--store', third);
    assert.deepEqual(await contents(third, 'b'), Buffer.concat([bytes, noise(3, 7)]));

    await world.fails(2, 'USAGE', ['copy', 'a']);
    await world.fails(2, 'USAGE', ['copy', 'a', '--to', other, '--from', other]);
    await world.fails(2, 'USAGE', ['copy', 'a', '--to', world.store]);
    await world.fails(2, 'USAGE', ['copy', 'a', '--to', 'ftp://host/dir']);
    await world.fails(2, 'USAGE', ['copy', 'a', '--to', 'http://127.0.0.1/']);
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['copy', 'none', '--to', other]);
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['copy', 'none', '--from', other]);
    await world.fails(3, 'NO_SUCH_FILE', ['copy', 'a', '--from', join(world.dir, 'nowhere')]);
    await world.fails(1, 'REMOTE_FAILED', ['copy', 'a', '--from', 'http://127.0.0.1:9/x']);
  });

  it('to and from what is no directory are refused, and nothing is made', async () => {
    await put('a', noise(1, 4));
    const before = readdirSync('.');
    const scp = 'me@host:/srv/store';
    const said = await Promise.all(
      ['--to', '--from'].map((option) => world.fails(2, 'USAGE', ['copy', 'a', option, scp], true)),
    );
    for (const { message, hint } of said) {
      assert.match(message, /scp-style/);
      assert.match(hint, /^Write ssh:\/\/me@host\/srv\/store/);
    }
    await Promise.all([
      world.fails(2, 'USAGE', ['export', 'a', scp], true),
      world.fails(2, 'USAGE', ['import', scp], true),
      world.fails(2, 'USAGE', ['put', MAIN, '--store', scp], true),
      world.fails(2, 'USAGE', ['export', 'a', 's3://bucket'], true),
      world.fails(2, 'USAGE', ['ls', '--store', 'ssh://host/dir'], true),
    ]);
    const { message, hint } = await world.fails(2, 'USAGE', ['copy', 'a', '--to', 'sftp://host/dir'], true);
    assert.match(message, /know sftp:\/\//);
    for (const known of ['ssh://', 'http://', 'https://']) assert.ok(hint.includes(known), hint);
    assert.deepEqual(readdirSync('.'), before);
  });

  it('show a bar on a terminal, with the total, and leave what was said before it', async () => {
    await put('a', noise(1, 512));
    const other = join(world.dir, 'other');
    const exported = join(world.dir, 'exported');
    const fresh = (name: string): string[] => ['--store', join(world.dir, name)];
    for (const [label, args] of [
      ['copying', ['copy', 'a', '--to', other]],
      ['copying', ['copy', 'a', '--from', other, ...fresh('x')]],
      ['exporting', ['export', 'a', exported]],
      ['importing', ['import', exported, ...fresh('y')]],
    ] as const) {
      const shown = onTerminal(world.env, args);
      assert.match(shown, new RegExp(`${label} █+ 2 MiB of 2 MiB`), args.join(' '));
      // The bar is cleared away for the announcement, and where it begins again is below that.
      assert.match(
        shown,
        /␛\[2K[0-9a-f]{12}: 512 of 512 chunks to send, 2 MiB before compression\r\n␛7/,
        args.join(' '),
      );
    }
    for (const quiet of ['--quiet', '--json'])
      assert.doesNotMatch(onTerminal(world.env, ['copy', 'a', '--to', other, quiet]), /chunks to send/);
    assert.doesNotMatch(onTerminal(world.env, ['export', 'a', join(world.dir, 'z'), '--quiet']), /exporting/);
  });

  it('show nothing of what the host there prints that would drive the terminal', async () => {
    await put('a', noise(1, 4));
    const bin = join(world.dir, 'bin');
    mkdirSync(bin);
    writeFileSync(join(bin, 'ssh'), "#!/bin/sh\nprintf 'a\\033]0;x\\007b\\n' >&2\nexit 255\n", {
      mode: 0o755,
    });
    world.env.PATH = `${bin}:${process.env.PATH}`;
    const ran = await world.run(['copy', 'a', '--to', 'ssh://host/dir']);
    assert.equal(ran.status, 1);
    assert.match(ran.stderr, /^a\\x1b\]0;x\\x07b\nlivesnap: ssh could not reach host: a\\x1b/);
    const json = await world.run(['copy', 'a', '--to', 'ssh://host/dir', '--json', '--quiet']);
    assert.match(JSON.parse(json.stdout).error.message, /could not reach host: a/);
    assert.equal(json.stderr, '');
  });

  it('are exported whole, moved by any means, imported, and never half there', async () => {
    const bytes = Buffer.concat([noise(1, 100), Buffer.from('a short end')]);
    const id = await put('a', bytes);
    await put('b', textPages(1, 50));
    const exported = join(world.dir, 'exported');
    await world.json('export', 'a', exported);
    assert.deepEqual(readdirSync(join(exported, 'snapshots')), [id]);
    assert.ok(!existsSync(`${exported}.partial`));
    await world.fails(2, 'USAGE', ['export', 'a', exported]);
    await world.fails(2, 'USAGE', ['export', 'a', file('plain', Buffer.alloc(3))]);
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['export', 'none', join(world.dir, 'x')]);

    execFileSync('tar', ['-C', world.dir, '-cf', join(world.dir, 'x.tar'), 'exported']);
    const elsewhere = join(world.dir, 'elsewhere');
    mkdirSync(elsewhere);
    execFileSync('tar', ['-C', elsewhere, '-xf', join(world.dir, 'x.tar')]);
    const moved = join(elsewhere, 'exported');
    assert.deepEqual(await contents(moved, 'a'), bytes);
    const mine = join(world.dir, 'mine');
    assert.equal((await world.json<Copied>('import', moved, '--store', mine)).sentChunks, 101);
    assert.equal((await world.json<Copied>('import', moved, '--store', mine)).sentChunks, 0);
    assert.deepEqual(await contents(mine, id), bytes);
    assert.deepEqual(await world.json('check', '--read-data', '--store', mine), { ok: true, problems: [] });

    // What lies under the name that it is made under, and is not an export's, is in the way, and stays.
    renameSync(exported, `${exported}.partial`);
    await world.fails(2, 'USAGE', ['export', 'b', exported]);
    assert.deepEqual(readdirSync(join(`${exported}.partial`, 'snapshots')), [id]);
    assert.ok(!existsSync(exported));
  });

  it('through pipes: put from stdin, get to stdout', async () => {
    const bytes = Buffer.concat([noise(1, 700), Buffer.from('a short end')]);
    const path = file('x', bytes);
    const shell = (script: string): Buffer =>
      execFileSync('bash', ['-o', 'pipefail', '-c', script, process.execPath, MAIN, path], {
        env: world.env,
        maxBuffer: 1 << 26,
        stdio: ['ignore', 'pipe', 'ignore'],
      });
    shell('cat "$2" | "$0" "$1" put - --tag piped --name from-a-pipe');
    assert.equal((await world.json<{ vm: string }[]>('ls'))[0]!.vm, 'from-a-pipe');
    assert.deepEqual(shell('"$0" "$1" get piped -'), bytes);
    assert.deepEqual(shell('"$0" "$1" get piped - | head -c 5000 || true'), bytes.subarray(0, 5000));
    const both = await world.run(['get', 'piped', '-', '--json']);
    assert.equal(both.status, 2);
  });

  it('from a hostile directory harm nothing, and are refused by name', async () => {
    await put('a', noise(1, 40));
    const good = join(world.dir, 'good');
    await world.json('export', 'a', good);
    const secret = file('secret', Buffer.from('root:x:0:0'));
    const before = readFileSync(secret);
    const [pack] = readdirSync(join(good, 'packs')) as [string];
    const [snapshot] = readdirSync(join(good, 'snapshots')) as [string];
    const hostile: Record<string, [code: string, harm: (dir: string) => void]> = {
      'a link in place of a pack': [
        'NOT_A_STORE',
        (dir) => {
          unlinkSync(join(dir, 'packs', pack));
          symlinkSync(secret, join(dir, 'packs', pack));
        },
      ],
      'a link in place of a folder': [
        'NOT_A_STORE',
        (dir) => {
          rmSync(join(dir, 'tags'), { recursive: true });
          symlinkSync(world.dir, join(dir, 'tags'));
        },
      ],
      'a link in place of the index': [
        'NOT_A_STORE',
        (dir) => {
          unlinkSync(join(dir, 'store.db'));
          symlinkSync(join(world.store, 'store.db'), join(dir, 'store.db'));
        },
      ],
      'a FIFO': [
        'NOT_A_STORE',
        (dir) => void execFileSync('mkfifo', [join(dir, 'packs', '000000ff-0.pack')]),
      ],
      'a name that is none of a store': [
        'NOT_A_STORE',
        (dir) => writeFileSync(join(dir, 'packs', '..evil'), ''),
      ],
      'a file beside the index': ['NOT_A_STORE', (dir) => linkSync(secret, join(dir, 'passwd'))],
      'a pack of 8 GiB of nothing': [
        'NOT_A_STORE',
        (dir) => truncateSync(join(dir, 'packs', pack), 8 * 2 ** 30),
      ],
      'a snapshot of 2 GiB of nothing': [
        'NOT_A_STORE',
        (dir) => truncateSync(join(dir, 'snapshots', snapshot), 2 ** 31),
      ],
      'a huge index': ['NOT_A_STORE', (dir) => truncateSync(join(dir, 'store.db'), 2 ** 27)],
      'a pack that was cut': ['DAMAGED', (dir) => truncateSync(join(dir, 'packs', pack), 3000)],
      'a snapshot with huge counts': [
        'DAMAGED',
        (dir) => {
          const bytes = readFileSync(join(dir, 'snapshots', snapshot));
          bytes.writeUInt32LE(0xffffffff, 16);
          writeFileSync(join(dir, 'snapshots', snapshot), bytes);
        },
      ],
      'a frame with a flipped bit': [
        'DAMAGED',
        (dir) => {
          const bytes = readFileSync(join(dir, 'packs', pack));
          bytes[9000]! ^= 1;
          writeFileSync(join(dir, 'packs', pack), bytes);
        },
      ],
      'a trigger in the index': [
        'DAMAGED',
        (dir) => {
          const database = new Database(join(dir, 'store.db'));
          database.exec(
            'CREATE VIEW evil AS SELECT 1; CREATE TRIGGER t AFTER INSERT ON packs BEGIN SELECT 1; END',
          );
          database.close();
        },
      ],
      'an id in the index that is a path': [
        'DAMAGED',
        (dir) => {
          const database = new Database(join(dir, 'store.db'));
          database.pragma('ignore_check_constraints = ON');
          database.pragma('foreign_keys = OFF');
          database.exec(
            `UPDATE snapshots SET id = '../packs/${pack}'; UPDATE tags SET snapshot = '../packs/${pack}'`,
          );
          database.close();
        },
      ],
      'an index that is none': ['DAMAGED', (dir) => writeFileSync(join(dir, 'store.db'), noise(1, 3))],
      'no index': ['NOT_A_STORE', (dir) => unlinkSync(join(dir, 'store.db'))],
    };
    const mine = join(world.dir, 'mine');
    await world.json('import', good, '--store', mine);
    const sound = await world.json('ls', '--store', mine);
    for (const [what, [code, harm]] of Object.entries(hostile)) {
      const dir = join(world.dir, 'hostile');
      rmSync(dir, { recursive: true, force: true });
      cpSync(good, dir, { recursive: true });
      harm(dir);
      const fresh = join(world.dir, `fresh-${Object.keys(hostile).indexOf(what)}`);
      const ran = await world.run(['import', dir, '--store', fresh, '--json']);
      assert.equal(JSON.parse(ran.stdout).error?.code, code, `${what}: ${ran.stdout}${ran.stderr}`);
      if (existsSync(fresh)) assert.deepEqual(await world.json('ls', '--store', fresh), [], what);
    }
    assert.deepEqual(await world.json('ls', '--store', mine), sound);
    assert.deepEqual(readFileSync(secret), before);
    await world.fails(3, 'NO_SUCH_FILE', ['import', join(world.dir, 'nowhere')]);
    await world.fails(1, 'NOT_A_STORE', ['import', secret]);
  });

  it('of a machine go on from the exported directory itself', async function () {
    requireKvm(this);
    await world.json(
      ...['start', '--kernel', probe('probe.bzImage'), '--memory', '64M', '--detach', '--name', 'a'],
    );
    const tick = await world.ask('a', '', /^TICK \d+ nonce=[0-9a-f]{16}$/);
    const nonce = /nonce=[0-9a-f]{16}/.exec(tick)![0];
    const { id } = await world.json<{ id: string }>('save', 'a', '--then', 'stop');
    const stick = join(world.dir, 'stick');
    await world.json('export', id, stick);
    rmSync(world.store, { recursive: true });
    await world.json('restore', stick, '--detach', '--name', 'b');
    assert.match(await world.ask('b', '', /^TICK \d+ nonce=[0-9a-f]{16}$/), new RegExp(nonce));
    // The store of the next save knows nothing of that directory: it is full.
    const saved = await world.json<{ parent: string | null }>('save', 'b');
    assert.equal(saved.parent, null);
    await world.json('stop', 'b');
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['restore', join(world.dir, 'nowhere')]);
  });

  describe('over ssh', () => {
    let sshd: ChildProcess | null = null;
    let dir: string;
    let port: number;

    before(async function () {
      if (!existsSync('/usr/sbin/sshd') || process.getuid?.() !== 0) {
        process.stderr.write('    SKIPPED, not tested: copies over ssh need root and openssh-server\n');
        this.skip();
      }
      dir = mkdtempSync(join(tmpdir(), 'livesnap-ssh-'));
      for (const key of ['host', 'user'])
        execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(dir, key)]);
      cpSync(join(dir, 'user.pub'), join(dir, 'authorized'));
      port = await freePort();
      writeFileSync(
        join(dir, 'sshd.conf'),
        [
          ...[`Port ${port}`, 'ListenAddress 127.0.0.1', `HostKey ${join(dir, 'host')}`],
          ...[`AuthorizedKeysFile ${join(dir, 'authorized')}`, 'StrictModes no', 'UsePAM no'],
          ...['PasswordAuthentication no', 'PermitRootLogin yes', 'PidFile none', ''],
        ].join('\n'),
      );
      writeFileSync(
        join(dir, 'ssh.conf'),
        [
          ...['Host *', `IdentityFile ${join(dir, 'user')}`, 'StrictHostKeyChecking no'],
          ...[`UserKnownHostsFile ${join(dir, 'known')}`, 'LogLevel ERROR', 'BatchMode yes', ''],
        ].join('\n'),
      );
      // What the user's ~/.ssh/config would say.
      mkdirSync(join(dir, 'bin'));
      writeFileSync(join(dir, 'bin/ssh'), `#!/bin/sh\nexec /usr/bin/ssh -F ${join(dir, 'ssh.conf')} "$@"\n`);
      chmodSync(join(dir, 'bin/ssh'), 0o755);
      mkdirSync('/run/sshd', { recursive: true });
      sshd = spawn('/usr/sbin/sshd', ['-D', '-e', '-f', join(dir, 'sshd.conf')], {
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      let said = '';
      for await (const part of sshd.stderr!) {
        said += part;
        if (said.includes('Server listening')) break;
      }
      assert.match(said, /Server listening/);
    });

    beforeEach(() => {
      world.env.PATH = `${join(dir, 'bin')}:${process.env.PATH}`;
      world.env.LIVESNAP_REMOTE_COMMAND = `'${process.execPath}' '${MAIN}'`;
    });

    after(async () => {
      if (sshd) {
        const gone = once(sshd, 'exit');
        sshd.kill();
        await gone;
      }
      if (dir) rmSync(dir, { recursive: true, force: true });
    });

    it('goes to a store there and comes back, and says what is wrong', async () => {
      const bytes = Buffer.concat([textPages(1, 500), noise(2, 500)]);
      await put('a', bytes);
      const there = join(world.dir, "a store's dir");
      const address = `ssh://127.0.0.1:${port}${encodeURI(there)}`;
      const sent = await world.json<Copied>('copy', 'a', '--to', address);
      assert.equal(sent.sentChunks, 1000);
      assert.ok(sent.sentBytes < 1000 * 4096, 'it is compressed');
      assert.deepEqual(await contents(there, 'a'), bytes);
      assert.equal((await world.json<Copied>('copy', 'a', '--to', address)).sentChunks, 0);
      const back = join(world.dir, 'back');
      assert.equal(
        (await world.json<Copied>('copy', 'a', '--from', address, '--store', back)).sentChunks,
        1000,
      );
      assert.deepEqual(await contents(back, 'a'), bytes);

      await world.fails(3, 'NO_SUCH_SNAPSHOT', ['copy', 'none', '--from', address]);
      await world.fails(3, 'NO_SUCH_FILE', ['copy', 'a', '--from', `ssh://127.0.0.1:${port}/nowhere`]);
      // ssh's own words stand before ours.
      const unreachable = await world.run(['copy', 'a', '--to', 'ssh://127.0.0.1:9/x']);
      assert.equal(unreachable.status, 1);
      assert.match(unreachable.stderr, /Connection refused[\s\S]*livesnap: ssh could not reach 127.0.0.1/);
      world.env.LIVESNAP_REMOTE_COMMAND = 'no-such-livesnap';
      const missing = await world.run(['copy', 'a', '--to', address, '--json']);
      assert.match(JSON.parse(missing.stdout).error.message, /there is no livesnap on 127.0.0.1/);
    });

    it('goes on after either side was killed', async () => {
      const bytes = noise(5, 30_000);
      await put('big', bytes);
      const there = join(world.dir, 'there');
      const address = `ssh://127.0.0.1:${port}${there}`;
      for (let round = 0; round < 2; round++) {
        const child = world.spawn('copy', 'big', '--to', address);
        const packs = join(there, 'packs');
        // Killed when the second pack has begun: the first has been committed.
        while (!existsSync(packs) || readdirSync(packs).length < 2 + round)
          await new Promise((resolve) => setTimeout(resolve, 10));
        child.kill('SIGKILL');
        await once(child, 'close');
      }
      const { sentChunks, presentChunks } = await world.json<Copied>('copy', 'big', '--to', address);
      assert.ok(presentChunks >= 8192, `${presentChunks} of what had arrived is used`);
      assert.equal(sentChunks + presentChunks, 30_000);
      assert.deepEqual(await contents(there, 'big'), bytes);
    });
  });
});

/** What livesnap sends to the terminal that it runs on; escapes are made visible. */
function onTerminal(env: NodeJS.ProcessEnv, args: readonly string[]): string {
  const quoted = [process.execPath, MAIN, ...args].map((word) => `'${word}'`).join(' ');
  return execFileSync('script', ['-qec', quoted, '/dev/null'], { env, stdio: ['ignore', 'pipe', 'inherit'] })
    .toString()
    .replaceAll('\x1b', '␛')
    .replaceAll('␛[0K', '');
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
