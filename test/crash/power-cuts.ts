/** Power cuts: the moments of a trace to cut at, what survives, and whether it is a sound store. */
import { createHash } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Chooser } from './chooser.js';
import { type Disk, type DiskState, type Survival, writeState } from './disk.js';
import type { World } from './model.js';
import { parseMarks } from './plan.js';
import { describeRecord, Kind, type TraceRecord } from './trace.js';
import { type Verification, Violation, verifyDisk } from './verify.js';

/** Applies a record to the disk, or its marks to the model. */
export const take = (disk: Disk, record: TraceRecord, world: World): void => {
  if (record.kind === Kind.mark) for (const mark of parseMarks(record.first.toString())) world.take(mark);
  else disk.apply(record);
};

/** Some moments of a trace, ascending: mostly decisive ones, else any. */
export function sampleCuts(trace: readonly TraceRecord[], choose: Chooser, count: number): number[] {
  const decisive = decisiveCuts(trace);
  const cuts = new Set<number>();
  for (let i = 0; i < count; i++)
    cuts.add(
      decisive.length > 0 && choose.chance(0.7) ? choose.pick(decisive) : choose.below(trace.length + 1),
    );
  return [...cuts].sort((a, b) => a - b);
}

/** The decisive moments of a trace: before and after each sync, change of names and mark. Ascending. */
export function decisiveCuts(trace: readonly TraceRecord[]): number[] {
  const cuts = new Set([0, trace.length]);
  trace.forEach(({ kind }, i) => {
    if (kind === Kind.write || kind === Kind.truncate || kind === Kind.allocate) return;
    cuts.add(i);
    cuts.add(i + 1);
  });
  return [...cuts].sort((a, b) => a - b);
}

/** The extremes, and what lies between them. */
export const SURVIVALS: readonly Survival[] = [
  { data: 'none', names: 'none' },
  { data: 'all', names: 'all' },
  { data: 'none', names: 'all' },
  { data: 'sizes', names: 'all' },
  { data: 'all', names: 'none' },
  { data: 'some', names: 'some' },
  { data: 'prefix', names: 'prefix' },
  { data: 'some', names: 'all' },
  { data: 'all', names: 'some' },
];

export const pickSurvival = (choose: Chooser): Survival =>
  choose.chance(0.5) ? { data: 'some', names: 'some' } : choose.pick(SURVIVALS);

export function digestOf(state: DiskState): string {
  const hash = createHash('sha256');
  for (const [path, bytes] of [...state].sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(`${path}\0${bytes?.length ?? 'directory'}\0`);
    if (bytes) hash.update(bytes);
  }
  return hash.digest('hex');
}

/** Verifies a state of the disk. Errors: {@link Violation}, which names the moment. */
export async function verifyState(
  dir: string,
  state: DiskState,
  world: World,
  verification: Verification,
  trace: readonly TraceRecord[],
  cut: number,
  survival: Survival,
): Promise<void> {
  const at = join(dir, 'state');
  rmSync(at, { recursive: true, force: true });
  mkdirSync(at);
  writeState(at, state);
  try {
    await verifyDisk(at, world, verification);
  } catch (error) {
    // The verification has changed the state: write it again for whoever investigates.
    const kept = join(dir, 'state-as-found');
    mkdirSync(kept);
    writeState(kept, state);
    const near = trace.slice(Math.max(0, cut - 4), cut + 2).map(describeRecord);
    throw new Violation(
      `power cut before record ${cut} of ${trace.length} (data ${survival.data}, names ${survival.names}` +
        `${verification.repair ? ', repaired' : ''}): ${(error as Error).stack}\n  ${near.join('\n  ')}`,
    );
  }
}
