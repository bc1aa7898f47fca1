/** The machines and snapshots of a host at one moment, and what has changed between two moments. */
import { isDeepStrictEqual } from 'node:util';
import type { Labels } from '../labels.js';
import type { RunDirectory } from '../machine/run-directory.js';
import type { SnapshotSummary } from '../page-stream.js';
import type { MachineState } from '../vmm/machine-types.js';

/** What events tell of a machine. */
export interface MachineFacts {
  readonly id: string;
  readonly name: string;
  readonly labels: Labels;
  readonly pid: number;
  readonly memoryBytes: number;
  readonly cpus: number;
  /** `failed`: it ended with an error, or its process died. */
  readonly state: Exclude<MachineState, 'stopped'> | 'failed';
  /** Why it failed. */
  readonly reason: string | null;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  /** When it failed. Null: it has not, or its process died without a word. */
  readonly failedAt: string | null;
  /** The snapshot that it was last saved to or restored from. */
  readonly snapshot: string | null;
}

export interface HostState {
  readonly machines: readonly MachineFacts[];
  readonly snapshots: readonly SnapshotSummary[];
}

export type HostChange =
  | {
      readonly type:
        | 'machine-started'
        | 'machine-paused'
        | 'machine-resumed'
        | 'machine-failed'
        /** It has other labels, or was saved. */
        | 'machine-changed'
        /** It is gone from the list of machines, also if it had failed before. */
        | 'machine-ended';
      readonly machine: MachineFacts;
    }
  | { readonly type: 'snapshot-saved' | 'snapshot-removed'; readonly snapshot: SnapshotSummary }
  | {
      readonly type: 'snapshot-tagged';
      readonly snapshot: SnapshotSummary;
      readonly addedTags: readonly string[];
      readonly removedTags: readonly string[];
    };

/** Null: there is no machine, or it does not run yet. */
export async function machineFacts(directory: RunDirectory): Promise<MachineFacts | null> {
  const found = await directory.look();
  const record = found === 'absent' ? null : await directory.readRecord();
  if (record === null) return null;
  const { id, name, labels, pid, memoryBytes, cpus, startedAt, snapshot, failure, failedAt = null } = record;
  const known = { id, name, labels, pid, memoryBytes, cpus, startedAt, failedAt, snapshot };
  if (failure !== null) return { ...known, state: 'failed', reason: failure };
  if (found === 'dead') return { ...known, state: 'failed', reason: 'its process died' };
  return { ...known, state: record.state ?? 'running', reason: null };
}

const byId = <T extends { readonly id: string }>(all: readonly T[]): ReadonlyMap<string, T> =>
  new Map(all.map((each) => [each.id, each]));

const isAsBefore = (old: MachineFacts, machine: MachineFacts): boolean =>
  machine.snapshot === old.snapshot && isDeepStrictEqual(machine.labels, old.labels);

/** First what has ended, because a new machine may have the name of an old one. */
export function changesBetween(before: HostState, after: HostState): HostChange[] {
  const [machinesBefore, machinesAfter] = [byId(before.machines), byId(after.machines)];
  const [snapshotsBefore, snapshotsAfter] = [byId(before.snapshots), byId(after.snapshots)];
  const changes: HostChange[] = [];
  for (const machine of before.machines)
    if (!machinesAfter.has(machine.id)) changes.push({ type: 'machine-ended', machine });
  for (const machine of after.machines) {
    const old = machinesBefore.get(machine.id);
    if (old === undefined) changes.push({ type: 'machine-started', machine });
    const oldState = old?.state ?? 'running'; // a machine that starts runs at first
    if (machine.state === oldState) {
      if (old !== undefined && !isAsBefore(old, machine)) changes.push({ type: 'machine-changed', machine });
      continue;
    }
    const type = ({ running: 'resumed', paused: 'paused', failed: 'failed' } as const)[machine.state];
    changes.push({ type: `machine-${type}`, machine });
  }
  for (const snapshot of before.snapshots)
    if (!snapshotsAfter.has(snapshot.id)) changes.push({ type: 'snapshot-removed', snapshot });
  for (const snapshot of after.snapshots) {
    const old = snapshotsBefore.get(snapshot.id);
    if (old === undefined) {
      changes.push({ type: 'snapshot-saved', snapshot });
      continue;
    }
    const addedTags = snapshot.tags.filter((tag) => !old.tags.includes(tag));
    const removedTags = old.tags.filter((tag) => !snapshot.tags.includes(tag));
    if (addedTags.length + removedTags.length > 0)
      changes.push({ type: 'snapshot-tagged', snapshot, addedTags, removedTags });
  }
  return changes;
}
