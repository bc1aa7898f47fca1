/**
 * Runs an outer machine under QEMU, and tells how it ended.
 *
 * Invariants:
 * - The outer kernel, the jobs and the reports of its init have a serial port each (outer/init). No output of a guest
 *   or of livesnap can look like a crash of the outer kernel, or like a report.
 * - QEMU ends with this process, however this process ends. Its changes to the disk go to a deleted temporary file.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';

/** The init reports every 10 s. A machine that is silent for so long hangs. */
const SILENCE_MS = 180_000;

export interface OuterMachine {
  /** The directory that scripts/svm-host filled. */
  readonly dir: string;
  readonly memoryMib: number;
  readonly cpus: number;
  /** Options for the init, on the kernel command line. */
  readonly options: Readonly<Record<string, string>>;
  /** Where logs are written: NAME-kernel.log, NAME-jobs.log, NAME-qemu.log. */
  readonly logs: string;
  readonly name: string;
  readonly onJobOutput: (bytes: Buffer) => void;
  readonly onReport: (report: Report) => void;
  readonly signal: AbortSignal;
  /** For tests: a program in place of QEMU. Its descriptors 3, 4 and 5 are the serial ports. */
  readonly command?: readonly string[];
  readonly silenceMs?: number;
}

export type Report = { readonly what: 'begin' | 'passed' | 'failed' | 'broken'; readonly text: string };

/**
 * `done`: the init has run all jobs. `crashed`: the outer machine ended before that, or hung; this says nothing about
 * livesnap. `stopped`: `signal` was aborted. `unusable`: QEMU ended with an error before the init ran.
 */
export type Ending =
  | { readonly how: 'done' }
  | { readonly how: 'stopped' }
  | { readonly how: 'crashed'; readonly why: string }
  | { readonly how: 'unusable'; readonly why: string };

const REPORT = /^(begin|passed|failed|broken):? (.+)$/;

/** What Linux prints first when it dies (kernel/panic.c, arch/x86/kernel/dumpstack.c, kernel/watchdog.c). */
const DEATH =
  /Kernel panic|Oops|BUG:|general protection fault|double fault|stack guard page|unable to handle|corrupted stack end/i;

/** The line with which a kernel announces its death. Null: there is none. */
export function findDeath(kernelLog: string): string | null {
  const line = kernelLog.split(/\r?\n/).find((text) => DEATH.test(text));
  return line?.replace(/^\[[ \d.]+\] */, '').trim() ?? null;
}

function qemuCommand({ dir, memoryMib, cpus, options }: OuterMachine): string[] {
  const settings = Object.entries(options).map(([name, value]) => `${name}=${value}`);
  // An oops, a task that hangs the processor, and a panic end the machine at once.
  const cmdline = [
    'console=ttyS0 quiet panic=-1 oops=panic softlockup_panic=1 watchdog_thresh=60',
    'mitigations=off tsc=reliable random.trust_cpu=on',
    ...settings,
  ];
  return [
    'qemu-system-x86_64',
    ...['-machine', 'q35', '-accel', 'tcg,thread=multi,tb-size=1024', '-cpu', 'max'],
    ...['-smp', String(cpus), '-m', String(memoryMib), '-display', 'none', '-nodefaults', '-no-reboot'],
    ...['-kernel', join(dir, 'vmlinuz'), '-initrd', join(dir, 'initrd'), '-append', cmdline.join(' ')],
    ...['-drive', `if=virtio,format=raw,file=${join(dir, 'root.img')},cache=unsafe,snapshot=on`],
    // ttyS0, ttyS1 and ttyS2 are the descriptors 3, 4 and 5, which are sockets.
    ...[3, 4, 5].flatMap((fd) => ['-chardev', `socket,id=fd${fd},fd=${fd}`, '-serial', `chardev:fd${fd}`]),
  ];
}

/** Calls `onLine` for each line of a stream. */
function readLines(stream: Readable, onLine: (line: string) => void): void {
  let rest = '';
  stream.setEncoding('latin1').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!.slice(-4096);
    for (const line of lines) onLine(line.replace(/\r$/, ''));
  });
}

/** Runs the machine until it ends. */
export async function runOuterMachine(machine: OuterMachine): Promise<Ending> {
  const { logs, name, signal, silenceMs = SILENCE_MS } = machine;
  if (signal.aborted) return { how: 'stopped' };
  const logFiles: number[] = [];
  /** Appends to a log at once: whoever hears of an event can read the log up to there. */
  const log = (voice: string): ((bytes: Buffer) => void) => {
    const fd = openSync(join(logs, `${name}-${voice}.log`), 'w', 0o600);
    logFiles.push(fd);
    return (bytes) => {
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
    };
  };
  // setpriv (util-linux) makes the kernel end QEMU with this process, even if this process is killed.
  const args = ['--pdeathsig', 'KILL', ...(machine.command ?? qemuCommand(machine))];
  const child = spawn('setpriv', args, { stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe', 'pipe'] });
  const [, , , kernel, jobs, reports] = child.stdio as unknown as Readable[];

  let kernelText = '';
  let isAlive = false;
  let isDone = false;
  let isSilent = false;
  let outputBytes = 0;
  // The init reports when its port has sent the output that the report is about. All of that is read when a whole turn
  // of the event loop reads nothing more.
  const afterOutput = (then: () => void, last = -1): void => {
    setImmediate(() => (outputBytes === last ? then() : afterOutput(then, outputBytes)));
  };
  const kill = () => child.kill('SIGKILL');
  const hang = () => {
    isSilent = true;
    kill();
  };
  let silence = setTimeout(hang, silenceMs);
  const wake = () => {
    clearTimeout(silence);
    if (!isSilent) silence = setTimeout(hang, silenceMs);
  };
  signal.addEventListener('abort', kill);

  const [qemuLog, kernelLog, jobsLog] = [log('qemu'), log('kernel'), log('jobs')];
  child.stdout!.on('data', qemuLog);
  child.stderr!.on('data', qemuLog);
  kernel!.on('data', (bytes: Buffer) => {
    kernelLog(bytes);
    kernelText = (kernelText + bytes.toString('latin1')).slice(-(1 << 20));
  });
  jobs!.on('data', (bytes: Buffer) => {
    outputBytes += bytes.length;
    jobsLog(bytes);
    machine.onJobOutput(bytes);
  });
  readLines(reports!, (line) => {
    wake();
    isAlive = true;
    const match = REPORT.exec(line);
    if (match) afterOutput(() => machine.onReport({ what: match[1] as Report['what'], text: match[2]! }));
    if (line !== 'done') return;
    isDone = true;
    // Nothing of the machine is kept, so it need not shut down.
    afterOutput(kill);
  });

  const status = await new Promise<number | string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('close', (code, killedBy) => resolve(code ?? killedBy ?? 'unknown'));
  });
  // Reports that were read are delivered first.
  await new Promise<void>((resolve) => afterOutput(resolve));
  clearTimeout(silence);
  signal.removeEventListener('abort', kill);
  for (const fd of logFiles) closeSync(fd);
  if (isDone) return { how: 'done' };
  if (signal.aborted) return { how: 'stopped' };
  if (isSilent) return { how: 'crashed', why: `it was silent for ${silenceMs / 1000} s` };
  const death = findDeath(kernelText);
  if (death !== null) return { how: 'crashed', why: death };
  if (status === 0) return { how: 'crashed', why: 'it reset without a message of its kernel' };
  const why = `QEMU ended with ${status}`;
  return isAlive ? { how: 'crashed', why } : { how: 'unusable', why };
}
