/**
 * A process that does what a plan says to the stores of a disk and writes down what it was told: `DISK MARKS PLAN`.
 * It may be killed, or its calls may fail, at any moment; it knows of neither.
 */
import { openSync, readFileSync, writeSync } from 'node:fs';
import { Contents } from './contents.js';
import { carryOutAll } from './execute.js';
import type { Plan } from './plan.js';

const [disk, marks, planFile] = process.argv.slice(2) as [string, string, string];
const { fingerprintBits, known, steps } = JSON.parse(readFileSync(planFile, 'utf8')) as Plan;
const marksFd = openSync(marks, 'a');
const contents = new Contents(known);
await carryOutAll(
  {
    disk,
    fingerprintBits,
    contents,
    say: (mark) =>
      writeSync(marksFd, `${JSON.stringify({ ns: Number(process.hrtime.bigint()), ...mark })}\n`),
  },
  steps,
);
