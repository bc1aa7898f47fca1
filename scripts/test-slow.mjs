// The tests that take too long for every change: `npm run test:slow`. Each is a command; the first failure ends the run.
//
//   node scripts/test-slow.mjs [--cycles 200] [--linux DIR]
//
// --cycles is how often each machine is saved and restored. A TCP connection carries half a megabyte for each, so 100 MB
// by default, across a save, a stop and a restore. DIR is the Linux guest that scripts/linux-guest built
// (default: the one in the user's cache; without it Linux is left out, which the run says).
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { baseDirectory, temporaryDirectory } from '../dist/src/environment.js';
import { formatDuration } from '../dist/src/format.js';
import { argumentsOf } from '../dist/test/arguments.js';
import { root } from './command-line.mjs';

const { values } = argumentsOf('test:slow', {
  options: {
    cycles: { type: 'string', default: '200' },
    linux: {
      type: 'string',
      default: join(baseDirectory('XDG_CACHE_HOME') ?? temporaryDirectory(), 'livesnap/linux-guest'),
    },
  },
});
const hasKvm = existsSync('/dev/kvm');
const hasLinux = hasKvm && existsSync(join(values.linux, 'bzImage'));

const script = (name, ...args) => [join(root, 'scripts', name), ...args];
const loads = (...args) =>
  ['2', '4'].map((cpus) => script('load-cycles.mjs', '--cycles', values.cycles, '--cpus', cpus, ...args));

const COMMANDS = [
  ['--enable-source-maps', join(root, 'dist/test/crash/run.js'), '--rounds', String(values.cycles * 5)],
  ...(hasKvm ? [...loads(), script('cycles.mjs', '--cycles', String(Math.ceil(values.cycles / 10)))] : []),
  ...(hasLinux
    ? [
        ...loads('--linux', values.linux),
        [
          join(root, 'node_modules/mocha/bin/mocha.js'),
          ...['--no-config', '--enable-source-maps', '--timeout', '3600000'],
          join(root, 'dist/test/linux/net.test.js'),
        ],
      ]
    : []),
];

if (!hasKvm) console.warn('test-slow: SKIPPED, there is no /dev/kvm: no machine is tested');
else if (!hasLinux) console.warn(`test-slow: SKIPPED, there is no Linux guest in ${values.linux}`);
const env = {
  ...process.env,
  LIVESNAP_LINUX_GUEST: values.linux,
  LIVESNAP_TRANSFER_BYTES: String(values.cycles * 500_000),
};
const startedMs = performance.now();
for (const command of COMMANDS) {
  console.log(`\n$ node ${command.join(' ')}`);
  const { status, signal } = spawnSync(process.execPath, command, {
    stdio: ['ignore', 'inherit', 'inherit'],
    env,
  });
  if (status !== 0) {
    console.error(`test-slow: failed (${signal ?? `status ${status}`})`);
    process.exit(1);
  }
}
console.log(`\ntest-slow: all passed in ${formatDuration(performance.now() - startedMs)}`);
