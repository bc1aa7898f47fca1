// The demonstration: everything through the built command line, in a temporary store, on the bundled guest. A machine
// fills its memory, is saved twice and stopped; a new process goes on where it was; the store says what it kept.
// With --quiet nothing but failures is printed.
import assert from 'node:assert/strict';
import { join, relative } from 'node:path';
import { styleText } from 'node:util';
import { CommandLine, root } from './command-line.mjs';

const cli = new CommandLine();
const quiet = process.argv.includes('--quiet');
const colours = process.stdout.isTTY;
const print = (text = '') => quiet || console.log(text);
const style = (format, text) => (colours ? styleText(format, text) : text);
const size = (bytes) =>
  bytes < 2 ** 20 ? `${Math.ceil(bytes / 2 ** 10)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;

const title = (text) => print(`\n${style('bold', text)}`);

/** Shows a command as it would be typed. */
function show(args, input) {
  const typed = args.map((arg) => (/[\s^]/.test(arg) ? `'${arg}'` : arg)).join(' ');
  print(style('cyan', `$ ${input === undefined ? '' : `echo '${input}' | `}livesnap ${typed}`));
}

async function run(...args) {
  show(args);
  const said = await cli.run(args);
  print(said.trimEnd());
  return said.trim();
}

async function result(...args) {
  show(args);
  return cli.json(...args);
}

async function ask(machine, line, answer) {
  show(['console', machine, '--until', answer], line);
  const said = await cli.ask(machine, line, answer);
  print(said);
  return said;
}

async function tick(machine) {
  const line = await cli.hear(machine, '^TICK \\d+ nonce=[0-9a-f]+$');
  print(line);
  const [, count, nonce] = /^TICK (\d+) nonce=(\w+)$/.exec(line);
  return { count: Number(count), nonce };
}

process.on('SIGINT', () => cli.end().finally(() => process.exit(130)));
try {
  title('A machine: 256 MiB, 2 vCPUs, the bundled guest');
  const kernel = relative(process.cwd(), join(root, 'guest/build/probe.bzImage'));
  const started = await result(
    ...['start', '--kernel', kernel, '--memory', '256M', '--cpus', '2', '--detach', '--name', 'demo'],
  );
  print(`It is process ${started.pid} and ran after ${started.readyMs} ms.`);

  title('It fills 64 MiB of its memory with text and 32 MiB with noise');
  await ask('demo', 'text 7 64', '^OK');
  await ask('demo', 'fill 9 32', '^OK');
  const sum = await ask('demo', 'sum 128', '^SUM');
  const before = await tick('demo');

  title('Saved while it runs');
  const first = await result('save', 'demo', '--tag', 'first');
  print(
    `${size(first.pages * 4096)} of memory, ${size(first.storedBytes)} stored, in ${first.saveMs.toFixed(0)} ms; the machine stood still for ${first.pauseMs.toFixed(1)} ms.`,
  );

  title('Saved again: only what changed is read and stored');
  const second = await result('save', 'demo', '--tag', 'second');
  const share = (100 * second.storedBytes) / first.storedBytes;
  print(
    `${size(second.storedBytes)} stored (${share.toFixed(2)}% of the first) in ${second.saveMs.toFixed(0)} ms; ${second.unchangedPages} pages unchanged.`,
  );

  title('Stopped, and restored in a new process');
  await run('stop', 'demo');
  const restored = await result('restore', 'second', '--detach', '--name', 'again');
  print(`It is process ${restored.pid} now and went on after ${restored.readyMs} ms.`);
  const after = await tick('again');
  assert.equal(after.nonce, before.nonce);
  assert.ok(after.count > before.count);
  assert.equal(await ask('again', 'sum 128', '^SUM'), sum);
  print(
    `The same nonce ${after.nonce}, which only its RAM holds; the same sum; ticks went on from ${before.count} to ${after.count}.`,
  );
  await run('stop', 'again');

  title('What the store keeps');
  await run('ls');
  await run('stats');

  title('Removed, and the space is free again');
  await run('rm', 'first', 'second');
  await run('gc');
  const emptied = await cli.json('stats');
  print(`The store takes ${size(emptied.storedBytes + emptied.indexBytes)} now.`);
} catch (error) {
  console.error(`\n${error.message}`);
  console.error('What this host lacks, if anything, livesnap doctor tells: node dist/src/cli/main.js doctor');
  process.exitCode = 1;
} finally {
  await cli.end();
}
