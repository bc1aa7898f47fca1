/**
 * Runs the tier `svm`: jobs on the /dev/kvm of an SVM host that QEMU's TCG emulates (docs/testing.md).
 *
 *     npm run test:svm -- [--dir DIR] [--limit MINUTES] [JOB...]
 *
 * Exit status 0: every job passed. 1: a job failed. 2: wrong usage. 3: no job failed, but some did not end, because the
 * outer machine crashed or the time was over. 130: interrupted.
 * Only a crash of the outer machine is tried again. A failure that livesnap or a guest reports never is.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { projectRoot } from '../../src/native/project-root.js';
import { buildGuestsOf } from '../hostile/guests.js';
import { type Report, runOuterMachine } from './outer-machine.js';

/** In the order in which they run. `memoryMib`: what the outer machine needs for it. */
const JOBS = {
  doctor: { memoryMib: 4096 },
  kvm: { memoryMib: 7168 },
  main: { memoryMib: 4096 },
  stock: { memoryMib: 4096 },
  disk: { memoryMib: 4096 },
  demo: { memoryMib: 4096 },
} as const;
type Job = keyof typeof JOBS;

/** How often the outer machine is started anew. */
const MAX_RESTARTS = 2;
/** TCG needs about 16 times as long as a processor, but limits are far above what a test needs. */
const TIMEOUT_FACTOR = 10;
const MOCHA_TIMEOUT_MS = 120_000;
/** When a job is killed: one that hangs where mocha's own timeout does not end it. */
const JOB_LIMIT_S = 2400;
const TAIL_LINES = 40;

function usageError(message: string): never {
  console.error(`test:svm: ${message}`);
  console.error('usage: npm run test:svm -- [--yes] [--dir DIR] [--limit MINUTES] [JOB...]');
  console.error(`jobs: ${Object.keys(JOBS).join(', ')} (default: all)`);
  process.exit(2);
}

function parseUsage() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        dir: { type: 'string' },
        limit: { type: 'string', default: '45' },
        yes: { type: 'boolean' },
      },
    });
  } catch (error) {
    return usageError((error as Error).message);
  }
}

const { values, positionals } = parseUsage();
const dir = values.dir ?? join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'livesnap/svm-host');
const limitMinutes = Number(values.limit);
if (!(limitMinutes > 0)) usageError(`"${values.limit}" is not a number of minutes`);
for (const name of positionals) if (!Object.hasOwn(JOBS, name)) usageError(`unknown job "${name}"`);
const wanted = (Object.keys(JOBS) as Job[]).filter(
  (job) => positionals.length === 0 || positionals.includes(job),
);

const startedMs = performance.now();
const seconds = (sinceMs: number): number => Math.round((performance.now() - sinceMs) / 1000);
const say = (text: string): void => console.log(`test:svm: [${seconds(startedMs)} s] ${text}`);

// The limit and the signals stop whatever runs.
const stop = new AbortController();
let interrupted = false;
const timer = setTimeout(() => stop.abort(), limitMinutes * 60_000);
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(name, () => {
    interrupted = true;
    stop.abort();
  });

const logs = join(dir, 'logs');
mkdirSync(logs, { recursive: true });

/** Prints the end of a text or a log file, without control characters that a guest may have written. */
function printEnd(what: string, text: string): void {
  const lines = printable(text).trimEnd().split('\n').slice(-TAIL_LINES);
  console.log(`test:svm: the end of ${what}:`);
  for (const line of lines) console.log(`  | ${line}`);
}
const printable = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is removed
  text.replaceAll(/\x1b\[[0-9;]*m|[\x00-\x08\x0b-\x1f\x7f]/g, '');

/**
 * Makes the outer machine, which has this project and no gcc. The script is a process group of its own, so that all of it
 * can be stopped.
 */
async function build(): Promise<boolean> {
  buildGuestsOf(join(projectRoot, 'test/kvm/guests'), join(projectRoot, 'dist/test/guests'));
  const child = spawn(join(projectRoot, 'scripts/svm-host'), [...(values.yes ? ['--yes'] : []), dir], {
    stdio: ['ignore', 'inherit', 'inherit'],
    detached: true,
  });
  const end = () => process.kill(-child.pid!, 'SIGTERM');
  stop.signal.addEventListener('abort', end);
  const [status] = await once(child, 'close');
  stop.signal.removeEventListener('abort', end);
  return status === 0;
}

const passed: Job[] = [];
const failed: Job[] = [];

/** Runs jobs in one outer machine. Resolves to false if it crashed. */
async function attempt(number: number, jobs: readonly Job[]): Promise<boolean> {
  const name = `run-${number}`;
  let job: Job | null = null;
  let jobStartedMs = 0;
  let output = '';
  const decoder = new TextDecoder();
  let isBroken = false;

  const onReport = ({ what, text }: Report): void => {
    if (what === 'broken') {
      isBroken = true;
      say(`the outer machine cannot run jobs: ${text}`);
    } else if (what === 'begin') {
      job = text as Job;
      jobStartedMs = performance.now();
      output = '';
      say(`job ${job}`);
    } else {
      say(`job ${job} ${what} in ${seconds(jobStartedMs)} s`);
      (what === 'passed' ? passed : failed).push(text as Job);
      if (what === 'failed') {
        printEnd(`the output of job ${job} (${name}-jobs.log)`, output);
        printEnd(
          `the outer kernel's log (${name}-kernel.log)`,
          readFileSync(join(logs, `${name}-kernel.log`), 'latin1'),
        );
      }
      job = null;
    }
  };
  const ending = await runOuterMachine({
    ...{ dir, logs, name, onReport, signal: stop.signal },
    memoryMib: Math.max(...jobs.map((each) => JOBS[each].memoryMib)),
    cpus: 2,
    options: {
      jobs: jobs.join(','),
      factor: String(TIMEOUT_FACTOR),
      limit: String(JOB_LIMIT_S),
      timeout: String(MOCHA_TIMEOUT_MS * TIMEOUT_FACTOR),
    },
    onJobOutput(bytes) {
      const text = printable(decoder.decode(bytes, { stream: true }));
      output = (output + text).slice(-(1 << 20));
      process.stdout.write(text);
    },
  });
  if (ending.how === 'done' && !isBroken) return true;
  const during = job === null ? '' : ` during job ${job}`;
  if (ending.how === 'stopped')
    say(interrupted ? 'interrupted' : `${limitMinutes} minutes are over${during}`);
  else if (ending.how !== 'done')
    say(
      `the outer machine ${ending.how === 'crashed' ? 'crashed' : 'did not start'}${during}: ${ending.why}`,
    );
  if (output !== '' && ending.how !== 'done') printEnd(`${name}-jobs.log`, output);
  for (const voice of ['kernel', 'qemu'])
    printEnd(`${name}-${voice}.log`, readFileSync(join(logs, `${name}-${voice}.log`), 'latin1'));
  return ending.how !== 'crashed';
}

async function run(): Promise<void> {
  say(`jobs ${wanted.join(', ')}; logs are in ${logs}`);
  rmSync(logs, { recursive: true });
  mkdirSync(logs);
  if (!(await build())) return;
  say(`the outer machine starts; from here on it takes the place of this host`);
  for (let number = 1; number <= 1 + MAX_RESTARTS; number++) {
    const left = wanted.filter((job) => !passed.includes(job) && !failed.includes(job));
    if (left.length === 0 || (await attempt(number, left))) return;
    if (number <= MAX_RESTARTS && !stop.signal.aborted)
      say(
        `this says nothing about livesnap: the outer machine is started anew (${number} of at most ${MAX_RESTARTS} times)`,
      );
  }
}

await run();
clearTimeout(timer);
const unfinished = wanted.filter((job) => !passed.includes(job) && !failed.includes(job));
say(
  [
    `passed: ${passed.join(', ') || 'none'}`,
    ...(failed.length > 0 ? [`failed: ${failed.join(', ')}`] : []),
    ...(unfinished.length > 0 ? [`not finished: ${unfinished.join(', ')}`] : []),
    `logs: ${logs}`,
  ].join('; '),
);
process.exit(interrupted ? 130 : failed.length > 0 ? 1 : unfinished.length > 0 ? 3 : 0);
