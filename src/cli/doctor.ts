/**
 * Checks of the host and of the installation. Each check loads the modules it needs by itself: a module that cannot be
 * loaded is a finding.
 */
import { accessSync, constants, existsSync, readFileSync, statfsSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { dirname, join } from 'node:path';
import { getSystemErrorName } from 'node:util';
import { type ChosenStore, namedStore } from '../chosen-store.js';
import { configFile, readConfig } from '../config.js';
import { runRoot } from '../environment.js';
import { ExitStatus, LivesnapError } from '../errors.js';
import { formatBytes, formatCount } from '../format.js';
import { bundledGuest, projectRoot } from '../native/project-root.js';
import { startDefaults } from './start-defaults.js';
import { joined, printable, styled, type Text, text } from './styled-text.js';
import { defineVerb } from './verb.js';

export interface Check {
  readonly name: string;
  /** False when `state` is `wrong`. */
  readonly ok: boolean;
  /** `note`: livesnap works, with a limitation or without something optional. */
  readonly state: 'ok' | 'note' | 'wrong';
  readonly message: string;
  /** What to do. Null: nothing. */
  readonly remedy: string | null;
}

/** The first minor version of each supported major one: `engines` in package.json. Later majors are supported. */
const SUPPORTED_NODES = new Map([
  [20, 12],
  [22, 14],
  [23, 6],
]);
const MIN_MEMORY_BYTES = 512 * 2 ** 20;
const MIN_STORE_BYTES = 2 ** 30;
const MIN_RUN_BYTES = 16 * 2 ** 20;

type Finding = Omit<Check, 'name'>;
const fine = (message: string): Finding => ({ ok: true, state: 'ok', message, remedy: null });
const note = (message: string, remedy: string): Finding => ({ ok: true, state: 'note', message, remedy });
const wrong = (message: string, remedy: string): Finding => ({ ok: false, state: 'wrong', message, remedy });

function checkNode(version: string = process.versions.node): Finding {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const first = SUPPORTED_NODES.get(major);
  const isSupported = first === undefined ? major > Math.max(...SUPPORTED_NODES.keys()) : minor >= first;
  return isSupported
    ? fine(`Node ${version}`)
    : wrong(`livesnap does not work in Node ${version}`, 'Install Node 22.14 or newer.');
}

async function checkAddon(): Promise<Finding> {
  const { addon } = await import('../native/addon.js');
  addon();
  return fine('the C++ addon loads');
}

async function checkSqlite(): Promise<Finding> {
  const { loadSqlite } = await import('../native/modules.js');
  loadSqlite();
  return fine('better-sqlite3 loads and opens a database');
}

async function checkLz4(): Promise<Finding> {
  const { loadLz4 } = await import('../native/modules.js');
  loadLz4();
  return fine('lz4-napi loads');
}

async function checkXxhash(): Promise<Finding> {
  const { loadXxhash } = await import('../native/modules.js');
  await loadXxhash()();
  return fine('xxhash-wasm loads');
}

async function checkBlake3(): Promise<Finding> {
  const { loadBlake3 } = await import('../native/modules.js');
  loadBlake3();
  return fine('@noble/hashes loads');
}

function checkProbe(): Finding {
  return existsSync(bundledGuest)
    ? fine(`the bundled guest is ${bundledGuest}`)
    : wrong('the bundled guest has not been built', 'Run npm run build:native. It needs gcc and make.');
}

/** What to do without /dev/kvm, by the flags in /proc/cpuinfo. */
function missingKvmRemedy(cpuinfo: string): string {
  if (/^flags\s*:.*\bvmx\b/m.test(cpuinfo)) return 'Load the module: sudo modprobe kvm_intel';
  if (/^flags\s*:.*\bsvm\b/m.test(cpuinfo)) return 'Load the module: sudo modprobe kvm_amd';
  if (/^flags\s*:.*\bhypervisor\b/m.test(cpuinfo))
    return 'This host is a virtual machine. Enable nested virtualization for it, or use another host.';
  return 'Enable virtualization (VT-x or AMD-V) in the firmware setup.';
}

async function checkKvm(): Promise<Finding> {
  if (!existsSync('/dev/kvm'))
    return wrong('/dev/kvm is missing', missingKvmRemedy(readFileSync('/proc/cpuinfo', 'utf8')));
  const { describeHost } = await import('../vmm/kvm/host.js');
  const { MAX_CPUS } = await import('../vmm/boot/interrupt-wiring.js');
  const { kind, apiVersion, maxCpus } = describeHost();
  const about = `KVM (${kind}), API version ${apiVersion}, up to ${formatCount(Math.min(maxCpus, MAX_CPUS), 'vCPU')} per machine`;
  return kind === 'pvm'
    ? note(
        `${about}; programs cannot run under the stock kernel of a distribution`,
        `Build a Linux guest for PVM: ${join(projectRoot, 'scripts/linux-guest')} DIR`,
      )
    : fine(about);
}

/** KVM's own page faults must be served, so a user-mode-only userfaultfd is not enough (userfaultfd(2)). */
function judgeUserfaultfd(errno: number | null): Finding {
  if (errno === null)
    return fine('a restored machine runs before its RAM is read: page faults of a guest may be served');
  const { EACCES, EPERM } = osConstants.errno;
  return note(
    `a restore reads all of RAM before the machine runs: page faults of a guest may not be served (userfaultfd: ${getSystemErrorName(-errno)})`,
    errno === EPERM || errno === EACCES
      ? 'Run sudo setfacl -m u:$USER:rw /dev/userfaultfd, or sudo sysctl vm.unprivileged_userfaultfd=1'
      : 'Use a kernel built with CONFIG_USERFAULTFD=y, and a container that allows userfaultfd(2).',
  );
}

async function checkUserfaultfd(): Promise<Finding> {
  const { lazyFillErrno } = await import('../native/memory-fill.js');
  return judgeUserfaultfd(lazyFillErrno());
}

function checkMemory(meminfo: string = readFileSync('/proc/meminfo', 'utf8')): Finding {
  const bytes = Number(/^MemAvailable:\s+(\d+) kB$/m.exec(meminfo)?.[1] ?? 0) * 1024;
  const message = `${formatBytes(bytes)} of memory available`;
  return bytes >= MIN_MEMORY_BYTES
    ? fine(message)
    : wrong(
        message,
        `Stop other programs. A machine of the default size needs ${formatBytes(MIN_MEMORY_BYTES)}.`,
      );
}

function checkSpace(dir: string, minBytes: number, remedy: string): Finding {
  const { bavail, bsize } = statfsSync(dir);
  const message = `${formatBytes(bavail * bsize)} free in ${dir}`;
  return bavail * bsize >= minBytes ? fine(message) : wrong(`only ${message}`, remedy);
}

function checkStore(storeDir: string): Finding {
  let dir = storeDir;
  while (!existsSync(dir)) dir = dirname(dir);
  try {
    accessSync(dir, constants.W_OK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return wrong(
      `the store ${storeDir} cannot be written (${code})`,
      'To write, choose another store with --store DIR or LIVESNAP_STORE.',
    );
  }
  return checkSpace(dir, MIN_STORE_BYTES, 'Free some space, or choose another store with --store DIR.');
}

/** What the config file says, and whether its store is used. Errors: those of {@link readConfig}, USAGE. */
function checkConfig(file: string | null, store: ChosenStore | null): Finding {
  if (file === null) return fine('there is no config file: the home directory is unknown');
  if (!existsSync(file)) return fine(`there is no config file ${file}`);
  const config = readConfig(file);
  startDefaults(file, config);
  const values = Object.entries(config).map(([key, value]) => `${key} ${[value].flat().join(' and ')}`);
  if (values.length === 0) return fine(`${file} sets nothing`);
  const winner = store === null ? undefined : WINNERS[store.from];
  const unused =
    config.store === undefined || winner === undefined ? '' : `; ${winner} has precedence over its store`;
  return fine(`${file}: ${values.join(', ')}${unused}`);
}

/** What has precedence over the config file. */
const WINNERS: Partial<Record<ChosenStore['from'], string>> = {
  caller: '--store',
  environment: 'LIVESNAP_STORE',
};

async function checkRunDirectory(): Promise<Finding> {
  const { checkRunRoot } = await import('../machine/run-directory.js');
  const root = runRoot();
  await checkRunRoot(root);
  return checkSpace(root, MIN_RUN_BYTES, 'Free some space, or set XDG_RUNTIME_DIR to another directory.');
}

/** Runs one check. An error is a finding. */
async function examine(name: string, check: () => Finding | Promise<Finding>): Promise<Check> {
  try {
    return { name, ...(await check()) };
  } catch (error) {
    const { message } = error as Error;
    const hint = error instanceof LivesnapError ? error.hint : undefined;
    return { name, ...wrong(message, hint ?? 'Run npm run build:native and check its output.') };
  }
}

async function diagnose(
  storeDir: () => string,
  named: ChosenStore | null,
): Promise<{ ok: boolean; checks: Check[] }> {
  const checks = [
    await examine('node', checkNode),
    await examine('addon', checkAddon),
    await examine('better-sqlite3', checkSqlite),
    await examine('lz4-napi', checkLz4),
    await examine('xxhash-wasm', checkXxhash),
    await examine('@noble/hashes', checkBlake3),
    await examine('guest', checkProbe),
    await examine('kvm', checkKvm),
    await examine('userfaultfd', checkUserfaultfd),
    await examine('memory', checkMemory),
    await examine('config', () => checkConfig(configFile(), named)),
    await examine('store', () => checkStore(storeDir())),
    await examine('run directory', checkRunDirectory),
  ];
  return { ok: checks.every((check) => check.ok), checks };
}

/** What this host offers to guests, for `fit --against`. Null without a usable KVM, about which a check tells. */
async function describeThisHost(): Promise<Record<string, unknown> | null> {
  try {
    const { encodeProfile } = await import('../vmm/fit/host-profile.js');
    const { profileOfThisHost } = await import('../vmm/fit/this-host.js');
    return encodeProfile(profileOfThisHost());
  } catch {
    return null;
  }
}

/** For tests. */
export const judge = { checkConfig, checkMemory, checkNode, checkSpace, judgeUserfaultfd, missingKvmRemedy };

/** With spaces to one width. */
const MARKS: Record<Check['state'], Text> = {
  ok: styled('good', 'ok   '),
  note: styled('caution', 'note '),
  wrong: styled('bad', 'WRONG'),
};

export const verb = defineVerb({
  name: 'doctor',
  operands: [],
  options: {},
  notes: [
    'Exit status 5: something is wrong.',
    'With --json, the result also describes the host, for fit --against FILE.',
  ].join('\n'),
  async run(call) {
    const { output } = call;
    const { ok, checks } = await diagnose(() => call.storeDir, namedStore(call.storeOption));
    const width = Math.max(...checks.map(({ name }) => name.length));
    const arrow = `\n${' '.repeat(width + 9)}→ `;
    const lines = (list: readonly Check[]): Text =>
      joined(
        list.map((check) => {
          const line = text`${MARKS[check.state]}  ${check.name.padEnd(width)}  ${printable(check.message)}`;
          return check.remedy === null ? line : text`${line}${arrow}${printable(check.remedy)}`;
        }),
      );
    output.result(
      { ok, checks, host: output.json ? await describeThisHost() : null },
      () => lines(checks),
      () => lines(checks.filter((check) => !check.ok)),
    );
    return ok ? 0 : ExitStatus.unsupportedHost;
  },
});
