/** Runs plans in child processes, under the recorder. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compareStates, Disk, readState } from './disk.js';
import { isOfOthers } from './faults.js';
import type { World } from './model.js';
import { type Plan, parseMarks, type Step } from './plan.js';
import { type Fault, Kind, readTrace, type TraceRecord, watchedEnvironment } from './trace.js';
import { Violation } from './verify.js';

const CHILD = fileURLToPath(new URL('./child.js', import.meta.url));
const CHILD_TIMEOUT_MS = 120_000;

/** A prepared disk, and the model of its stores. */
export interface Base {
  readonly disk: string;
  readonly world: World;
  readonly fingerprintBits: number;
}

/**
 * Carries out plans at once, each in its own child. Returns the disk before the first record, and the records.
 * Together they account for every byte that the children left. Errors: {@link Violation}.
 */
export async function recordSteps(
  dir: string,
  base: Base,
  plans: readonly (readonly Step[])[],
  fault?: Fault,
): Promise<{ disk: Disk; trace: TraceRecord[] }> {
  const live = join(dir, 'disk');
  cpSync(base.disk, live, { recursive: true });
  const disk = new Disk(live);
  const end = new Disk(live);
  const { fingerprintBits, world } = base;
  const traceFile = join(dir, 'trace');
  const children = plans.map(async (steps, i) => {
    const marks = join(dir, `marks-${i}`);
    const plan = { fingerprintBits, known: world.contents.all(), steps };
    const watch = { trace: traceFile, ...(fault && { fault }) };
    const ended = await runChild(live, join(dir, `plan-${i}`), plan, marks, watch);
    if (ended !== 0) throw new Violation(`the child ended with ${ended}`);
    for (const mark of parseMarks(readFileSync(marks, 'utf8')))
      if (mark.at === 'bug' || (mark.at === 'failed' && !fault && !isOfOthers(mark)))
        throw new Violation(`${mark.step?.do} failed without a fault: ${mark.message}`);
  });
  for (const child of await Promise.allSettled(children)) if (child.status === 'rejected') throw child.reason;
  const trace = readTrace(traceFile);
  for (const record of trace) if (record.kind !== Kind.mark) end.apply(record);
  const escaped = compareStates(end.current(), readState(live));
  if (escaped.length > 0) throw new Violation(`the recorder missed changes: ${escaped.join('; ')}`);
  return { disk, trace };
}

/** Carries out a plan in a child. Resolves to 0, the signal that ended it, or its status with what it printed. */
export async function runChild(
  disk: string,
  planFile: string,
  plan: Plan,
  marks: string,
  watch: { trace?: string; fault?: Fault },
): Promise<number | string> {
  writeFileSync(planFile, JSON.stringify(plan));
  writeFileSync(marks, '');
  const child = spawn(process.execPath, ['--enable-source-maps', CHILD, disk, marks, planFile], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: watchedEnvironment(disk, { marks, ...watch }),
    timeout: CHILD_TIMEOUT_MS,
    killSignal: 'SIGABRT',
  });
  let printed = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    printed += text;
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  return code === 0 ? 0 : code === null ? signal! : `status ${code}: ${printed}`;
}
