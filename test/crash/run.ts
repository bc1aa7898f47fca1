/**
 * `npm run crash -- [--seed S] [--rounds N] [--round I] [--kind power-cut|fault] [--json]`: power cuts and faults, round
 * after round (docs/testing.md). A failure names its seed and round and leaves its directory; the same seed and round
 * do the same again.
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { usePageWorkers } from '../../src/store/page-pool.js';
import { RoundFailure, type RoundResult, Rounds } from './rounds.js';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    rounds: { type: 'string', default: '100' },
    round: { type: 'string' },
    kind: { type: 'string' },
    json: { type: 'boolean', default: false },
    'keep-going': { type: 'boolean', default: false },
  },
});

const number = (text: string | undefined, otherwise: number): number => {
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0)
    throw new Error(`${text} is not a number of rounds or a seed`);
  return value;
};

usePageWorkers();
const seed = number(values.seed, randomInt(2 ** 32));
const first = number(values.round, 0);
const rounds = values.round === undefined ? number(values.rounds, 100) : 1;
const kind = values.kind === undefined ? undefined : values.kind === 'fault' ? 'fault' : 'power cut';

const summary = {
  seed,
  rounds: 0,
  failures: 0,
  powerCuts: 0,
  cuts: 0,
  states: 0,
  steps: 0,
  faults: {} as Record<string, number>,
};
const add = (result: RoundResult): void => {
  if (result.kind === 'power cut') summary.powerCuts++;
  summary.cuts += result.cuts;
  summary.states += result.states;
  summary.steps += result.steps;
  for (const fault of result.faults) summary.faults[fault] = (summary.faults[fault] ?? 0) + 1;
};

const all = new Rounds(seed);
const began = Date.now();
if (!values.json) console.log(`seed ${seed}, ${rounds} rounds, in ${all.dir}`);
for (let round = first; round < first + rounds; round++) {
  try {
    add(await all.run(round, kind));
  } catch (error) {
    if (!(error instanceof RoundFailure)) throw error;
    summary.failures++;
    console.error(`FAILED: seed ${seed} round ${round} (npm run crash -- --seed ${seed} --round ${round})`);
    console.error(`  left in ${error.dir}`);
    console.error(`  ${error.message}`);
    if (!values['keep-going']) break;
  }
  summary.rounds++;
  if (process.stderr.isTTY)
    process.stderr.write(`\r${summary.rounds} of ${rounds} rounds, ${summary.states} states `);
  else if (!values.json && summary.rounds % 50 === 0)
    console.log(`${summary.rounds} rounds, ${summary.states} states`);
}
if (process.stderr.isTTY) process.stderr.write('\n');
const seconds = Math.round((Date.now() - began) / 1000);
console.log(
  values.json
    ? JSON.stringify({ ...summary, seconds })
    : `${summary.rounds} rounds in ${seconds} s, ${summary.failures} failed: ${summary.powerCuts} with power cuts ` +
        `(${summary.cuts} moments, ${summary.states} states of the disk), the others with faults ` +
        `(${Object.entries(summary.faults)
          .map(([what, count]) => `${count} ${what}`)
          .join(', ')}); ${summary.steps} steps`,
);
if (summary.failures === 0) all.drop();
process.exit(summary.failures === 0 ? 0 : 1);
