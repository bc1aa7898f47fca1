#!/usr/bin/env node
/**
 * The demonstration on Linux, with its root on a disk. A program writes to the disk and keeps a connection. A shell loop
 * draws a progress bar on ttyS0. The machine is saved half-way and stopped, and its store is moved to another directory.
 * It is restored from there in a new process. The bar continues to 100%, the shell has its variables and history, and
 * the program goes on. The disk of the snapshot is written out, and its file system is clean.
 *
 * usage: demo-linux.mjs [DIR]    DIR holds the guest; scripts/linux-guest builds missing files.
 */
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { styleText } from 'node:util';
import { baseDirectory, temporaryDirectory } from '../dist/src/environment.js';
import { formatBytes, formatCount, formatDuration } from '../dist/src/format.js';
import { CommandLine, root } from './command-line.mjs';

const main = join(root, 'dist/bin/livesnap.js');
const guest =
  process.argv[2] ?? join(baseDirectory('XDG_CACHE_HOME') ?? temporaryDirectory(), 'livesnap/linux-guest');

const style = (format, text) => (process.stdout.isTTY ? styleText(format, text) : text);
const title = (text) => process.stdout.write(`\n${style('bold', text)}\n`);

class Failure extends Error {}

/** The demonstration has a temporary store and run directory. */
const cli = new CommandLine();

function show(args) {
  process.stdout.write(`${style('cyan', `$ livesnap ${args.join(' ')}`)}\n`);
}

/** Runs a verb, and prints the command and its output. */
async function run(...args) {
  show(args);
  await cli.run(args, { inherit: true });
}

/** A console on pipes. Output is shown while `until` waits. */
class Console {
  #text = '';
  #ended = false;
  #wake = () => {};
  #child;

  constructor(name) {
    this.#child = spawn(process.execPath, [main, 'console', name], {
      env: cli.env,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#child.stdin.on('error', () => {});
    this.#child.stdout.setEncoding('latin1').on('data', (text) => {
      this.#text += text;
      this.#wake();
    });
    this.#child.on('close', () => {
      this.#ended = true;
      this.#wake();
    });
  }

  send(line) {
    this.#child.stdin.write(`${line}\n`);
  }

  /** Shows output up to the first match of `expected` and returns the match. */
  async until(expected) {
    for (;;) {
      const match = expected.exec(this.#text);
      if (match !== null) {
        const end = match.index + match[0].length;
        // The terminal must not answer busybox's query for the cursor position.
        process.stdout.write(this.#text.slice(0, end).replaceAll('\x1b[6n', ''));
        this.#text = this.#text.slice(end);
        return match;
      }
      if (this.#ended)
        throw new Failure(`the console ended before ${expected}; its last output:\n${this.#text}`);
      await new Promise((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  close() {
    this.#child.kill();
  }
}

const PROMPT = /~ # /;
const CMDLINE = 'console=ttyS0 reboot=t panic=-1 root=/dev/vda';
/** Runs in the background of the guest. It takes questions from file descriptor 3 of the shell. */
const LOAD =
  'ifconfig lo 127.0.0.1 up; mkfifo /run/ask; load disk=/var/lib/load echo=7 tcp=127.0.0.1:7 < /run/ask & exec 3> /run/ask';

/** Asks the program in the guest about its disk and its connection. The next prompt may come before the answers. */
async function askLoad(console) {
  console.send('echo disk >&3; echo tcp >&3');
  const [, right, synced] = await console.until(/DISK right=(\d+)\/(\d+)[^\n]*\n/);
  const [, echoed] = await console.until(/TCP echoed=(\d+)[^\n]*\n/);
  if (right !== synced) throw new Failure(`the disk has ${right} right records of ${synced}`);
  return { synced: Number(synced), echoed: Number(echoed) };
}

/** Runs a command of the host, and prints it with its output. */
function runOnHost(command, ...args) {
  process.stdout.write(`${style('cyan', `$ ${command} ${args.join(' ')}`)}\n`);
  const { status } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  if (status !== 0) throw new Failure(`${command} ended with status ${status}`);
}

async function demonstrate() {
  title(`The guest: ${guest}`);
  const build = spawnSync(join(root, 'scripts/linux-guest'), [guest], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (build.status !== 0) throw new Failure('the Linux guest could not be built');

  title('Linux boots from its bzImage, with Debian on a disk, to a shell on ttyS0');
  await run(
    ...['start', '--kernel', join(guest, 'bzImage'), '--initrd', join(guest, 'initrd')],
    ...['--cmdline', CMDLINE, '--block', `path=${join(guest, 'disk.ext4')},cow`],
    ...['--memory', '128M', '--cpus', '2', '--name', 'before', '--detach'],
  );
  const before = new Console('before');
  await before.until(/LINUX READY[^\n]*\n/);
  await before.until(PROMPT);
  before.send('read secret < /proc/sys/kernel/random/uuid; echo "the secret is $secret"');
  const [, secret] = await before.until(/the secret is ([0-9a-f-]{36})/);
  await before.until(PROMPT);

  title('A program writes to the disk, and exchanges lines over a connection');
  before.send(LOAD);
  await before.until(/LOAD READY[^\n]*\n/);
  const early = await askLoad(before);

  title('A shell loop draws a progress bar; half-way, the machine is saved and stopped');
  before.send(
    'n=0; while [ $n -lt 40 ]; do n=$((n+1)); bar="$bar#"; printf "\\r[%-40s] %3d%%" $bar $((n*5/2)); sleep 0.2; done; echo',
  );
  await before.until(/\r\[#{20} *\] +50%/);
  process.stdout.write('\n');
  const save = ['save', 'before', '--then', 'stop', '--tag', 'half-way'];
  show(save);
  const saved = await cli.json(...save);
  before.close();
  process.stdout.write(
    `Saved ${formatCount(saved.pages, 'page')} in ${formatDuration(saved.saveMs)} (paused ${formatDuration(saved.pauseMs)}); ` +
      `${formatCount(saved.zeroPages)} are zero, ${formatBytes(saved.storedBytes)} stored.\n`,
  );
  await run('ps');

  title('The store moves to another directory');
  const elsewhere = join(cli.dir, 'elsewhere', 'store');
  mkdirSync(join(cli.dir, 'elsewhere'));
  cpSync(cli.store, elsewhere, { recursive: true });
  rmSync(cli.store, { recursive: true });
  cli.env.LIVESNAP_STORE = elsewhere;
  await run('ls');

  title('In a new process, the bar continues');
  await run('restore', 'half-way', '--name', 'after', '--detach');
  const after = new Console('after');
  await after.until(/\r\[#{40}\] 100%/);
  await after.until(PROMPT);

  title('The shell still has its variables and its history');
  after.send('echo "the secret is $secret"; echo "$n steps"; history');
  const [, remembered] = await after.until(/the secret is ([0-9a-f-]{36})/);
  await after.until(/random\/uuid[^\n]*\n/);
  await after.until(PROMPT);
  if (remembered !== secret)
    throw new Failure(`the restored shell has the secret ${remembered}, not ${secret}`);

  title('The program goes on');
  const late = await askLoad(after);
  after.close();
  process.stdout.write('\n');
  if (late.synced <= early.synced || late.echoed <= early.echoed)
    throw new Failure('the program stands still');
  await run('stop', 'after', '--discard');

  title('The disk of the snapshot has a clean file system');
  const disk = join(cli.dir, 'disk.ext4');
  await run('disk', 'half-way', '0', disk);
  runOnHost('e2fsck', '-p', disk);
  runOnHost('e2fsck', '-f', '-n', disk);
  title('Done: one machine, two processes, two directories.');
}

for (const signal of ['SIGINT', 'SIGTERM'])
  process.on(signal, () => cli.end().finally(() => process.exit(130)));
if (!existsSync(main)) {
  process.stderr.write('demo-linux: livesnap is not built: run npm run build\n');
  process.exit(1);
}
try {
  await demonstrate();
} catch (error) {
  process.stderr.write(`demo-linux: ${error instanceof Failure ? error.message : error.stack}\n`);
  process.exitCode = 1;
} finally {
  await cli.end();
}
