/**
 * Runs rounds of power cuts and faults (docs/testing.md):
 *
 *     npm run crash -- [--seed S] [--rounds N] [--round I] [--kind power-cut|fault] [--jobs N] [--keep-going] [--json]
 *
 * A failure names its seed and round, and leaves its files. The same seed and round repeat it.
 */
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { formatCount } from '../../src/format.js';
import { usePageWorkers } from '../../src/store/worker/page-pool.js';
import { argumentsOf } from '../arguments.js';
import { RoundFailure, type RoundResult, Rounds } from './rounds.js';

const { values } = argumentsOf('crash', {
  options: {
    seed: { type: 'string' },
    rounds: { type: 'string', default: '100' },
    round: { type: 'string' },
    kind: { type: 'string' },
    jobs: { type: 'string' },
    part: { type: 'string' },
    json: { type: 'boolean', default: false },
    'keep-going': { type: 'boolean', default: false },
  },
});

function usageError(message: string): never {
  console.error(`crash: ${message}`);
  process.exit(2);
}

const number = (text: string | undefined, otherwise: number): number => {
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) usageError(`"${text}" is not a whole number`);
  return value;
};

const seed = number(values.seed, randomInt(2 ** 32));
const first = number(values.round, 0);
const rounds = values.round === undefined ? number(values.rounds, 100) : 1;
const KINDS: Record<string, RoundResult['kind']> = { 'power-cut': 'power cut', fault: 'fault' };
const kind = values.kind === undefined ? undefined : KINDS[values.kind];
if (values.kind !== undefined && kind === undefined)
  usageError(`unknown kind "${values.kind}"; use ${Object.keys(KINDS).join(' or ')}`);
const jobs = Math.min(number(values.jobs, 1), rounds);
/** Each of `parts` processes does every `parts`-th round. */
const [part, parts] = (values.part ?? '0/1').split('/').map(Number) as [number, number];

interface Summary {
  rounds: number;
  failures: number;
  powerCuts: number;
  cuts: number;
  states: number;
  steps: number;
  faults: Record<string, number>;
}
const summary: Summary = { rounds: 0, failures: 0, powerCuts: 0, cuts: 0, states: 0, steps: 0, faults: {} };

function add(more: Partial<Summary>): void {
  for (const [name, count] of Object.entries(more))
    if (typeof count === 'number') summary[name as 'rounds'] += count;
  for (const [fault, count] of Object.entries(more.faults ?? {}))
    summary.faults[fault] = (summary.faults[fault] ?? 0) + count;
}

const countsOf = ({ kind: what, cuts, states, steps, faults }: RoundResult): Partial<Summary> => ({
  powerCuts: what === 'power cut' ? 1 : 0,
  cuts,
  states,
  steps,
  faults: Object.fromEntries(
    [...new Set(faults)].map((fault) => [fault, faults.filter((other) => other === fault).length]),
  ),
});

async function runHere(): Promise<void> {
  usePageWorkers();
  const all = new Rounds(seed);
  if (!values.json) console.log(`seed ${seed}, ${formatCount(rounds, 'round')}, in ${all.dir}`);
  for (let round = first + part; round < first + rounds; round += parts) {
    try {
      add(countsOf(await all.run(round, kind)));
    } catch (error) {
      if (!(error instanceof RoundFailure)) throw error;
      summary.failures++;
      console.error(`FAILED: seed ${seed}, round ${round}: ${error.message}`);
      console.error(`  Its files are in ${error.dir}`);
      console.error(`  Repeat it with: npm run crash -- --seed ${seed} --round ${round}`);
    }
    summary.rounds++;
    if (summary.failures > 0 && !values['keep-going']) break;
    if (process.stderr.isTTY)
      process.stderr.write(`\r${summary.rounds} of ${rounds} rounds, ${summary.states} disk states `);
    else if (!values.json && summary.rounds % 50 === 0)
      console.log(`${summary.rounds} of ${rounds} rounds, ${summary.states} disk states`);
  }
  if (process.stderr.isTTY) process.stderr.write('\n');
  if (summary.failures === 0) all.drop();
}

async function runInProcesses(): Promise<void> {
  if (!values.json) console.log(`seed ${seed}, ${formatCount(rounds, 'round')} in ${jobs} processes`);
  const args = [...process.execArgv, fileURLToPath(import.meta.url), ...process.argv.slice(2)];
  await Promise.all(
    Array.from({ length: jobs }, async (_, i) => {
      const own = ['--seed', String(seed), '--jobs', '1', '--part', `${i}/${jobs}`, '--json'];
      const child = spawn(process.execPath, [...args, ...own], { stdio: ['ignore', 'pipe', 'inherit'] });
      let printed = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        printed += text;
      });
      await once(child, 'close');
      if (!printed.startsWith('{')) throw new Error(`process ${i} of ${jobs} ended without a result`);
      const { seed: _seed, seconds: _seconds, ...counts } = JSON.parse(printed);
      add(counts);
    }),
  );
}

const began = Date.now();
await (jobs > 1 ? runInProcesses() : runHere());
const seconds = Math.round((Date.now() - began) / 1000);
const FAULT_NAMES: Record<string, string> = { before: 'kill before a call', after: 'kill after a call' };
const plural = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`;
const faults = Object.entries(summary.faults).map(
  ([fault, count]) => `${FAULT_NAMES[fault] ?? fault}: ${count}`,
);
console.log(
  values.json
    ? JSON.stringify({ seed, ...summary, seconds })
    : [
        `${plural(summary.rounds, 'round')} in ${seconds} s, ${summary.failures} failed, ${plural(summary.steps, 'step')}`,
        `  power cuts: ${plural(summary.powerCuts, 'round')}, ${plural(summary.cuts, 'moment')}, ${plural(summary.states, 'disk state')}`,
        `  faults: ${plural(summary.rounds - summary.failures - summary.powerCuts, 'round')} (${faults.join(', ') || 'none met'})`,
      ].join('\n'),
);
process.exit(summary.failures === 0 ? 0 : 1);
