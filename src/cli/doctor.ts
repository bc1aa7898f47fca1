/**
 * `livesnap doctor`: what this host lacks, and how to mend it. Loads the rest of livesnap only as it goes, because
 * a part that cannot be loaded is what it may have to report.
 */
import { accessSync, closeSync, constants, existsSync, openSync, readFileSync, statfsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runRoot } from '../environment.js';
import { ExitStatus, LivesnapError } from '../errors.js';
import { formatBytes, printable } from './output.js';
import { defineVerb } from './verb.js';

export interface Check {
  readonly name: string;
  /** False when `state` is `wrong`. */
  readonly ok: boolean;
  /** `note`: good to know; livesnap works without it. */
  readonly state: 'ok' | 'note' | 'wrong';
  readonly message: string;
  /** What to do about it, or what is good to know although it is well; null: nothing. */
  readonly remedy: string | null;
}

const OLDEST_NODE = [20, 12] as const;
const ENOUGH_MEMORY_BYTES = 512 * 2 ** 20;
const ENOUGH_STORE_BYTES = 2 ** 30;
const ENOUGH_RUN_BYTES = 16 * 2 ** 20;

type Finding = Omit<Check, 'name'>;
const well = (message: string): Finding => ({ ok: true, state: 'ok', message, remedy: null });
const note = (message: string, remedy: string): Finding => ({ ok: true, state: 'note', message, remedy });
const wrong = (message: string, remedy: string): Finding => ({ ok: false, state: 'wrong', message, remedy });

function checkNode(version: string = process.versions.node): Finding {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const enough = major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1]);
  return enough
    ? well(`Node ${version}`)
    : wrong(`Node ${version} is too old`, `Install Node ${OLDEST_NODE.join('.')} or newer.`);
}

async function checkAddon(): Promise<Finding> {
  const { addon } = await import('../native/addon.js');
  addon();
  return well('the C++ addon loads');
}

async function checkSqlite(): Promise<Finding> {
  const { loadSqlite } = await import('../native/modules.js');
  loadSqlite();
  return well('better-sqlite3 loads and opens a database');
}

async function checkLz4(): Promise<Finding> {
  const { loadLz4 } = await import('../native/modules.js');
  loadLz4();
  return well('lz4-napi loads');
}

async function checkXxhash(): Promise<Finding> {
  const { loadXxhash } = await import('../native/modules.js');
  await loadXxhash()();
  return well('xxhash-wasm loads');
}

function checkProbe(): Finding {
  const file = join(dirname(fileURLToPath(import.meta.url)), '../../../guest/build/probe.bzImage');
  return existsSync(file)
    ? well('the bundled guest is built')
    : wrong('the bundled guest has not been built', 'Run npm run build:native (gcc and make are needed).');
}

/** Why there may be no /dev/kvm, from what the CPU and the kernel say of themselves. */
function missingKvmRemedy(cpuinfo: string): string {
  if (/^flags\s*:.*\bvmx\b/m.test(cpuinfo)) return 'Load the module: sudo modprobe kvm_intel.';
  if (/^flags\s*:.*\bsvm\b/m.test(cpuinfo)) return 'Load the module: sudo modprobe kvm_amd.';
  if (/^flags\s*:.*\bhypervisor\b/m.test(cpuinfo))
    return 'This host is itself a virtual machine: allow nested virtualization on the host below, or use another.';
  return 'Switch on virtualization (VT-x or AMD-V) in the firmware set-up.';
}

async function checkKvm(): Promise<Finding> {
  if (!existsSync('/dev/kvm'))
    return wrong('there is no /dev/kvm', missingKvmRemedy(readFileSync('/proc/cpuinfo', 'utf8')));
  const { describeHost } = await import('../vmm/kvm/host.js');
  const { kind, apiVersion, maxCpus } = describeHost();
  const about = `KVM (${kind}), API version ${apiVersion}, up to ${maxCpus} vCPUs a machine`;
  return kind === 'pvm'
    ? note(
        `${about}; PVM emulates the guest's kernel mode: the userspace of a stock distribution kernel cannot run`,
        'Build a Linux that can with: scripts/linux-guest DIR.',
      )
    : well(about);
}

const canWrite = (path: string): boolean => {
  try {
    closeSync(openSync(path, 'r+'));
    return true;
  } catch {
    return false;
  }
};

/** Faults of KVM itself must be served, so the user-mode-only kind does not do (userfaultfd(2)). */
function checkUserfaultfd(knob = '/proc/sys/vm/unprivileged_userfaultfd'): Finding {
  if (!existsSync(knob))
    return note(
      'the kernel has no userfaultfd; nothing uses it yet',
      'Use a kernel built with CONFIG_USERFAULTFD=y.',
    );
  if (canWrite('/dev/userfaultfd')) return well('userfaultfd, by /dev/userfaultfd');
  if (process.getuid?.() === 0) return well('userfaultfd, as root');
  if (readFileSync(knob, 'utf8').trim() === '1') return well('userfaultfd, for every user');
  return note(
    'this user may not use userfaultfd for faults in the kernel; nothing uses it yet',
    'Allow it with: sudo setfacl -m u:$USER:rw /dev/userfaultfd, or sudo sysctl vm.unprivileged_userfaultfd=1.',
  );
}

function checkMemory(meminfo: string = readFileSync('/proc/meminfo', 'utf8')): Finding {
  const bytes = Number(/^MemAvailable:\s+(\d+) kB$/m.exec(meminfo)?.[1] ?? 0) * 1024;
  const message = `${formatBytes(bytes)} of memory are free`;
  return bytes >= ENOUGH_MEMORY_BYTES
    ? well(message)
    : wrong(
        message,
        `Stop something: a machine of the default size wants ${formatBytes(ENOUGH_MEMORY_BYTES)}.`,
      );
}

function checkSpace(dir: string, enough: number, remedy: string): Finding {
  const { bavail, bsize } = statfsSync(dir);
  const message = `${formatBytes(bavail * bsize)} are free in ${dir}`;
  return bavail * bsize >= enough ? well(message) : wrong(`only ${message}`, remedy);
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
      'Name a store that can with --store DIR or LIVESNAP_STORE; this one can still be read.',
    );
  }
  return checkSpace(dir, ENOUGH_STORE_BYTES, 'Free some, or name another store with --store DIR.');
}

async function checkRunDirectory(): Promise<Finding> {
  const { checkRunRoot } = await import('../server/run-directory.js');
  const root = runRoot();
  await checkRunRoot(root);
  return checkSpace(root, ENOUGH_RUN_BYTES, 'Free some, or set XDG_RUNTIME_DIR to another directory.');
}

/** A check that raises has found something, too. */
async function examine(name: string, look: () => Finding | Promise<Finding>): Promise<Check> {
  try {
    return { name, ...(await look()) };
  } catch (error) {
    const { message } = error as Error;
    const hint = error instanceof LivesnapError ? error.hint : undefined;
    return { name, ...wrong(message, hint ?? 'Run npm run build:native and look at what it says.') };
  }
}

export async function diagnose(storeDir: () => string): Promise<{ ok: boolean; checks: Check[] }> {
  const checks = [
    await examine('node', checkNode),
    await examine('addon', checkAddon),
    await examine('better-sqlite3', checkSqlite),
    await examine('lz4-napi', checkLz4),
    await examine('xxhash-wasm', checkXxhash),
    await examine('guest', checkProbe),
    await examine('kvm', checkKvm),
    await examine('userfaultfd', () => checkUserfaultfd()),
    await examine('memory', checkMemory),
    await examine('store', () => checkStore(storeDir())),
    await examine('run directory', checkRunDirectory),
  ];
  return { ok: checks.every((check) => check.ok), checks };
}

/** The parts that decide, for the tests. */
export const judge = { checkMemory, checkNode, checkSpace, checkUserfaultfd, missingKvmRemedy };

const MARKS = { ok: 'ok   ', note: 'note ', wrong: 'WRONG' } as const;

export const verb = defineVerb({
  name: 'doctor',
  summary: 'say what this host lacks, and how to mend it',
  operands: [],
  options: {},
  notes: 'Exit status 5 says that something is wrong.',
  async run(call) {
    const { output } = call;
    const { ok, checks } = await diagnose(() => call.storeDir);
    const width = Math.max(...checks.map(({ name }) => name.length));
    const lines = (list: readonly Check[]) =>
      list
        .map((check) => {
          const line = `${MARKS[check.state]}  ${check.name.padEnd(width)}  ${printable(check.message)}`;
          return check.remedy === null
            ? line
            : `${line}\n${' '.repeat(width + 9)}→ ${printable(check.remedy)}`;
        })
        .join('\n');
    output.result(
      { ok, checks },
      () => lines(checks),
      () => lines(checks.filter((check) => !check.ok)),
    );
    return ok ? 0 : ExitStatus.unsupportedHost;
  },
});
