/**
 * The child process: carries out the plan in the file PLAN on the stores below the directory DISK, and appends marks to
 * the file MARKS. Arguments: `DISK MARKS PLAN`.
 *
 * It may be killed, or its calls may fail, at any moment. It knows of neither.
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
    mark: (mark) =>
      writeSync(marksFd, `${JSON.stringify({ ns: Number(process.hrtime.bigint()), ...mark })}\n`),
  },
  steps,
);
