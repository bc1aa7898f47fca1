// Save and restore cycles with the built command line. Each cycle starts a machine, fills memory, saves and stops it;
// restores it in a new process, compares it and saves it again; and restores that snapshot once more.
//
//   node scripts/cycles.mjs [--cycles 50] [--cpus 2] [--memory 256M] [--text 64] [--fill 32] [--kernel FILE]
//
// Exit status 0: every cycle restored the saved state. That is the nonce that only RAM holds, the count of ticks, the
// checksum of memory, and the counter of every vCPU.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { formatBytes, formatCount, formatDuration } from '../dist/src/format.js';
import { argumentsOf } from '../dist/test/arguments.js';
import { CommandLine, root } from './command-line.mjs';

const { values } = argumentsOf('cycles', {
  options: {
    cycles: { type: 'string', default: '50' },
    cpus: { type: 'string', default: '2' },
    memory: { type: 'string', default: '256M' },
    text: { type: 'string', default: '64' },
    fill: { type: 'string', default: '32' },
    kernel: { type: 'string', default: join(root, 'guest/build/probe.bzImage') },
  },
});
const cycles = Number(values.cycles);
const sumMib = Number(values.text) + Number(values.fill) + 32;

const TICK = '^TICK \\d+ nonce=[0-9a-f]{16}$';
/** Ticks that a vCPU may wait for a core. There are five a second. */
const MAX_TICKS = 50;
const parseTick = (line) => {
  const [, count, nonce] = /^TICK (\d+) nonce=([0-9a-f]{16})$/.exec(line);
  return { count: Number(count), nonce };
};
const counters = async (cli, machine) =>
  (await cli.ask(machine, 'cpus', '^CPUS [0-9,]+$')).slice('CPUS '.length).split(',').map(Number);

/** The state of the machine, as the guest reports it. */
async function look(cli, machine) {
  return {
    sum: await cli.ask(machine, `sum ${sumMib}`, '^SUM [0-9a-f]{16}$'),
    counters: await counters(cli, machine),
    tick: parseTick(await cli.hear(machine, TICK)),
  };
}

/** Restores a snapshot taken after `before` and compares. A machine that booted again would count from 1. */
async function restoreAndCompare(cli, id, name, before) {
  await cli.json('restore', id, '--detach', '--name', name);
  const now = await look(cli, name);
  assert.equal(now.tick.nonce, before.tick.nonce, 'the nonce is the same');
  assert.equal(now.sum, before.sum, 'the sum of memory is the same');
  assert.ok(now.tick.count > before.tick.count, 'ticks continue');
  assert.equal(now.counters.length, Number(values.cpus));
  for (const [i, counter] of now.counters.entries())
    assert.ok(counter > before.counters[i], `vCPU ${i} continues its count`);
  // On a busy host a vCPU may wait long for a core.
  let still = now.counters.map((_, i) => i);
  for (let tick = 0; still.length > 0 && tick < MAX_TICKS; tick++) {
    if (tick > 0) await cli.hear(name, TICK);
    const later = await counters(cli, name);
    still = still.filter((i) => later[i] <= now.counters[i]);
  }
  assert.deepEqual(still, [], 'vCPUs that do not run');
}

const cli = new CommandLine();
process.on('SIGINT', () => cli.end().finally(() => process.exit(130)));
try {
  for (let cycle = 1; cycle <= cycles; cycle++) {
    const startedMs = performance.now();
    await cli.json(
      ...['start', '--kernel', values.kernel, '--memory', values.memory, '--cpus', values.cpus],
      ...['--detach', '--name', 'a'],
    );
    await cli.ask('a', `text 7 ${values.text}`, '^OK');
    await cli.ask('a', `fill 9 ${values.fill}`, '^OK');
    const first = await look(cli, 'a');
    const saved = await cli.json('save', 'a');
    await cli.json('stop', 'a');

    await restoreAndCompare(cli, saved.id, 'b', first);
    const second = await look(cli, 'b');
    const again = await cli.json('save', 'b', '--then', 'stop');
    assert.equal(again.parent, saved.id);
    await restoreAndCompare(cli, again.id, 'c', second);
    await cli.json('stop', 'c');
    assert.deepEqual(await cli.json('ps'), [], 'nothing is left running');

    console.log(
      `Cycle ${cycle} of ${cycles}: nonce ${first.tick.nonce}, ${first.sum}, ` +
        `stored ${formatBytes(saved.storedBytes)} and ${formatBytes(again.storedBytes)}, ${formatDuration(performance.now() - startedMs)}`,
    );
  }
  const check = await cli.json('check', '--read-data');
  assert.deepEqual(check, { ok: true, problems: [] });
  const snapshots = await cli.json('ls');
  assert.equal(snapshots.length, 2 * cycles);
  await cli.json('rm', ...snapshots.map(({ id }) => id));
  await cli.json('gc');
  const { storedBytes, indexBytes } = await cli.json('stats');
  assert.ok(
    storedBytes + indexBytes < 2 ** 20,
    `the emptied store still has ${formatBytes(storedBytes + indexBytes)}`,
  );
  console.log(
    `${formatCount(cycles, 'cycle')} passed; the emptied store has ${formatBytes(storedBytes + indexBytes)}`,
  );
} finally {
  await cli.end();
}
