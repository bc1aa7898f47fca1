// Save and restore cycles of one machine under load, with the built command line. All vCPUs count under one lock. In
// each cycle the machine is saved and stopped, restored in a new process, and asked whether its counts still agree.
//
//   node scripts/load-cycles.mjs [--cycles 200] [--cpus 2] [--linux DIR]
//
// The guest is the probe, or with --linux the guest that scripts/linux-guest built in DIR.
//
// Exit status 0: after every restore the guest had the nonce that only its RAM holds, the shared counts were the sums
// of what each vCPU knew of its own, no TSC had gone back, and the counts continued.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { formatCount, formatDuration } from '../dist/src/format.js';
import { argumentsOf } from '../dist/test/arguments.js';
import { CommandLine, root } from './command-line.mjs';

const { values } = argumentsOf('load-cycles', {
  options: {
    cycles: { type: 'string', default: '200' },
    cpus: { type: 'string', default: '2' },
    linux: { type: 'string' },
  },
});
const cycles = Number(values.cycles);
/** Older snapshots are removed after so many cycles. */
const CLEAN_EVERY = 20;

const PROBE = {
  start: ['--kernel', join(root, 'guest/build/probe.bzImage'), '--memory', '64M'],
  async load(cli, machine) {
    await cli.hear(machine, '^TICK \\d+ nonce=');
    await cli.ask(machine, 'load 1', '^OK load: on');
  },
  nonce: async (cli, machine) => /nonce=(\w+)/.exec(await cli.hear(machine, '^TICK \\d+ nonce='))[1],
};

const linux = (dir) => ({
  start: ['--kernel', join(dir, 'bzImage'), '--initrd', join(dir, 'initrd'), '--memory', '128M'],
  async load(cli, machine) {
    await cli.hear(machine, '^LINUX READY');
    await cli.ask(machine, `load locks=${values.cpus}`, '^LOAD READY nonce=');
  },
  nonce: async (cli, machine) => (await cli.ask(machine, 'nonce', '^NONCE ')).slice('NONCE '.length),
});

/** What all vCPUs have counted together. Fails if their shares do not add up. */
async function counted(cli, machine) {
  const line = await cli.ask(machine, 'locks', '^LOCKS ');
  const match = /^LOCKS locked=(\d+)\/(\d+) added=(\d+)\/(\d+) warps=(\d+)$/.exec(line);
  assert(match, line);
  const [locked, lockedSum, added, addedSum, warps] = match.slice(1);
  assert.equal(locked, lockedSum, line);
  assert.equal(added, addedSum, line);
  assert.equal(warps, '0', line);
  return BigInt(locked);
}

const guest = values.linux === undefined ? PROBE : linux(values.linux);
const startedMs = performance.now();
const cli = new CommandLine();
process.on('SIGINT', () => cli.end().finally(() => process.exit(130)));
try {
  let machine = 'cycle-0';
  await cli.json('start', ...guest.start, '--cpus', values.cpus, '--detach', '--name', machine);
  await guest.load(cli, machine);
  const nonce = await guest.nonce(cli, machine);
  let count = await counted(cli, machine);
  const old = [];
  for (let cycle = 1; cycle <= cycles; cycle++) {
    const { id } = await cli.json('save', machine, '--then', 'stop');
    machine = `cycle-${cycle}`;
    await cli.json('restore', id, '--detach', '--name', machine);
    const now = await counted(cli, machine);
    assert(now > count, 'the vCPUs count on');
    assert.equal(await guest.nonce(cli, machine), nonce);
    count = now;
    old.push(id);
    if (cycle % CLEAN_EVERY === 0 || cycle === cycles) {
      const older = old.splice(0, old.length - 1);
      if (older.length > 0) await cli.json('rm', ...older);
      await cli.json('gc');
      console.log(`Cycle ${cycle} of ${cycles}: nonce ${nonce}, counted ${formatCount(Number(count))}`);
    }
  }
  assert.deepEqual(await cli.json('check', '--read-data'), { ok: true, problems: [] });
  console.log(
    `${formatCount(cycles, 'cycle')} with ${formatCount(Number(values.cpus), 'vCPU')} passed in ` +
      formatDuration(performance.now() - startedMs),
  );
} finally {
  await cli.end();
}
