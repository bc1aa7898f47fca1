// The demonstration, with the built command line, a temporary store and the bundled guest. A machine fills its memory,
// is saved twice and stopped, and continues in a new process. Then the store shows what deduplication saved.
// --quiet: print only failures.
import assert from 'node:assert/strict';
import { join, relative } from 'node:path';
import { styleText } from 'node:util';
import { formatBytes, formatCount, formatDuration } from '../dist/src/format.js';
import { CommandLine, root } from './command-line.mjs';

const PAGE_BYTES = 4096;

const cli = new CommandLine();
const quiet = process.argv.includes('--quiet');
const colours = process.stdout.isTTY;
const print = (text = '') => quiet || console.log(text);
const style = (format, text) => (colours ? styleText(format, text) : text);

const title = (text) => print(`\n${style('bold', text)}`);

/** Prints a command as a user types it. */
function show(args, input) {
  const typed = args.map((arg) => (/[\s^]/.test(arg) ? `'${arg}'` : arg)).join(' ');
  print(style('cyan', `$ ${input === undefined ? '' : `echo '${input}' | `}livesnap ${typed}`));
}

async function run(...args) {
  show(args);
  const text = await cli.run(args);
  print(text.trimEnd());
  return text.trim();
}

async function result(...args) {
  show(args);
  return cli.json(...args);
}

async function ask(machine, line, answer) {
  show(['console', machine, '--until', answer], line);
  const text = await cli.ask(machine, line, answer);
  print(text);
  return text;
}

async function tick(machine) {
  const line = await cli.hear(machine, '^TICK \\d+ nonce=[0-9a-f]+$');
  print(line);
  const [, count, nonce] = /^TICK (\d+) nonce=(\w+)$/.exec(line);
  return { count: Number(count), nonce };
}

process.on('SIGINT', () => cli.end().finally(() => process.exit(130)));
try {
  title('Start a machine: 256 MiB, 2 vCPUs, the bundled guest');
  const kernel = relative(process.cwd(), join(root, 'guest/build/probe.bzImage'));
  const started = await result(
    ...['start', '--kernel', kernel, '--memory', '256M', '--cpus', '2', '--detach', '--name', 'demo'],
  );
  print(`Process ${started.pid} runs it after ${formatDuration(started.readyMs)}.`);

  title('Fill 64 MiB of its memory with text and 32 MiB with noise');
  await ask('demo', 'text 7 64', '^OK');
  await ask('demo', 'fill 9 32', '^OK');
  const sum = await ask('demo', 'sum 128', '^SUM');
  const before = await tick('demo');

  title('Save it while it runs');
  const first = await result('save', 'demo', '--tag', 'first');
  print(
    `Saved ${formatBytes(first.pages * PAGE_BYTES)} in ${formatDuration(first.saveMs)} ` +
      `(paused ${formatDuration(first.pauseMs)}); ${formatBytes(first.storedBytes)} stored.`,
  );

  title('Save it again: only changed pages are read and stored');
  const second = await result('save', 'demo', '--tag', 'second');
  const share = (100 * second.storedBytes) / first.storedBytes;
  print(
    `Saved in ${formatDuration(second.saveMs)}; ${formatBytes(second.storedBytes)} stored ` +
      `(${share.toFixed(2)}% of the first save); ${formatCount(second.unchangedPages, 'page')} unchanged.`,
  );

  title('Stop it, and restore it in a new process');
  await run('stop', 'demo');
  const restored = await result('restore', 'second', '--detach', '--name', 'again');
  print(`Process ${restored.pid} runs it after ${formatDuration(restored.readyMs)}.`);
  const after = await tick('again');
  assert.equal(after.nonce, before.nonce);
  assert.ok(after.count > before.count);
  assert.equal(await ask('again', 'sum 128', '^SUM'), sum);
  print(
    `Same nonce ${after.nonce}, which only its RAM holds. Same checksum. Ticks continue from ${before.count} to ${after.count}.`,
  );
  await run('stop', 'again');

  title('Look at the store');
  await run('ls');
  await run('stats');

  title('Remove the snapshots and free their space');
  await run('rm', 'first', 'second');
  await run('gc');
  const emptied = await cli.json('stats');
  print(`The store takes ${formatBytes(emptied.storedBytes + emptied.indexBytes)} now.`);
} catch (error) {
  console.error(`\n${error.message}`);
  console.error('To check this host: bin/livesnap doctor');
  process.exitCode = 1;
} finally {
  await cli.end();
}
