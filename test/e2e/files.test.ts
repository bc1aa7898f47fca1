/** Files put into a store and written out again. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { noise } from '../store/scratch.js';
import { ending, MAIN, World } from './cli.js';
import { writeFile } from './stored-files.js';

describe('livesnap put and get', function () {
  this.timeout(180_000);
  let world: World;
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  it('read standard input and write standard output', async () => {
    const bytes = Buffer.concat([noise(1, 700), Buffer.from('a short end')]);
    const path = writeFile(world, 'x', bytes);
    const inShell = (script: string): Buffer =>
      execFileSync('bash', ['-o', 'pipefail', '-c', script, process.execPath, MAIN, path], {
        env: world.env,
        maxBuffer: 1 << 26,
        stdio: ['ignore', 'pipe', 'ignore'],
      });
    inShell('cat "$2" | "$0" "$1" put - --tag piped --name from-a-pipe');
    assert.equal((await world.json<{ vm: string }[]>('ls'))[0]!.vm, 'from-a-pipe');
    assert.deepEqual(inShell('"$0" "$1" get piped -'), bytes);
    assert.deepEqual(inShell('"$0" "$1" get piped - | head -c 5000 || true'), bytes.subarray(0, 5000));
    const both = await world.run(['get', 'piped', '-', '--json']);
    assert.equal(both.status, 2);
  });

  /** Runs a shell script in which $L is livesnap. */
  const shell = (script: string, ...more: string[]) =>
    ending(
      spawn('bash', ['-c', script, 'bash', ...more], {
        cwd: world.dir,
        env: { ...world.env, L: `${process.execPath} ${MAIN}` },
      }),
    );

  it('write to stdout and other descriptors in turn with other commands', async () => {
    const ran = await shell(`
        echo data >in && $L put in --tag t --quiet >&2
        { echo HEAD; $L get t /dev/stdout; echo TAIL; } >mixed
        for to in - /dev/stdout /dev/fd/1 /proc/self/fd/1; do echo first >log; $L get t $to >>log; cat log; done
        echo first >log; $L get t /dev/stderr 2>>log; cat log
        echo first >log; $L get t /dev/fd/7 7>>log; cat log
        $L get t /dev/stdout | cat
        $L get t >(cat >there; echo done >>there) --quiet
        until grep -qs done there; do sleep 0.1; done
        cat mixed there; ls`);
    assert.deepEqual([ran.status, ran.stderr.replace(/^[0-9a-f]{32}\n/, '')], [0, '']);
    assert.deepEqual(ran.stdout.split('\n'), [
      ...Array(4).fill(['first', 'data']).flat(),
      ...['Wrote 5 B to /dev/stderr', 'first', 'data'],
      ...['Wrote 5 B to /dev/fd/7', 'first', 'data'],
      'data',
      ...['HEAD', 'data', 'TAIL', 'data', 'done'],
      ...['in', 'log', 'mixed', 'run', 'store', 'there', ''],
    ]);
  });

  it('read pipes, sockets, FIFOs, and files whose names are not UTF-8', async () => {
    const ran = await shell(`
        set -e
        f=$(printf 'a\\377b')
        echo bytes >"$f"
        echo one | $L put /dev/stdin --tag one
        $L put <(echo two) --tag two
        mkfifo fifo; (sleep 0.2; echo three >fifo) & $L put fifo --tag three
        $L put "$f" --tag four; echo five | $L put - --tag five
        $L put /dev/stdin --tag six <"$f"
        for tag in one two three four five six; do $L get $tag -; done
        $L get four "$f-2" --quiet; cat "$f-2"
        $L ls --json >list`);
    assert.equal(ran.status, 0, ran.stderr);
    assert.deepEqual(
      ran.stdout.split('\n').filter((line) => !/^[0-9a-f]{32}$/.test(line)),
      ['one', 'two', 'three', 'bytes', 'five', 'bytes', 'bytes', ''],
    );
    const list = JSON.parse(readFileSync(join(world.dir, 'list'), 'utf8')) as { vm: string | null }[];
    assert.deepEqual(
      list.map(({ vm }) => vm),
      [null, null, 'fifo', 'a\ufffdb', null, null],
    );
    // Between Node processes standard streams are sockets, which have no name that can be opened.
    const socket = await world.run(['put', '/dev/stdin', '--tag', 'seven'], 'seven');
    assert.equal(socket.status, 0, socket.stderr);
    assert.deepEqual(await world.run(['get', 'seven', '/dev/stdout']), {
      status: 0,
      stdout: 'seven',
      stderr: '',
    });
    await world.fails(2, 'USAGE', ['put', world.dir]);
  });

  it('show no progress bar on the terminal that the data goes to', async () => {
    await world.run(['put', '-', '--tag', 't'], 'data\n');
    const inTerminal = (command: string) =>
      shell('script -qec "$1" /dev/null </dev/null', `$L get t ${command}`);
    for (const target of ['-', '/dev/stdout', '/dev/stderr', '/dev/tty']) {
      const ran = await inTerminal(`${target} --quiet`);
      assert.equal(ran.stdout, 'data\r\n', target);
      const loud = await inTerminal(target);
      assert.equal(loud.stdout.replace(/Wrote 5 B to .*\r\n/, ''), 'data\r\n', target);
    }
    assert.match(
      (await inTerminal('- | cat')).stdout,
      /reading/,
      'there is a bar if the data goes elsewhere',
    );
  });

  it('name the limit if the file is too large for its target', async () => {
    await world.json('put', process.execPath, '--tag', 'node');
    const ran = await shell('ulimit -f 64; $L get node out');
    assert.deepEqual(
      [ran.status, ran.stderr],
      [
        1,
        'livesnap: cannot write out: the file is too large\n' +
          'Write to a file system that can hold it; ulimit -f shows the limit of the process.\n',
      ],
    );
    assert.equal((await shell('ls')).stdout, 'run\nstore\n');
  });
});
