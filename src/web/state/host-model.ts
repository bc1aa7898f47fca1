/** What the page knows of the host: the last whole state, and the changes since. Pure. */
import type { Job, Machine, Overview, Snapshot, Usage } from './types.js';

/** Processor use of a machine, newest last, one sample for each look. */
export type Samples = readonly number[];
const MAX_SAMPLES = 60;

export interface HostModel extends Overview {
  /** By ID of the machine: of one processor, 0 to its number of vCPUs. */
  readonly cpu: Readonly<Record<string, Samples>>;
  /** When the last figures came, in ms, and the processor time of each machine then. */
  readonly lastLook: { readonly atMs: number; readonly cpuSeconds: Readonly<Record<string, number>> } | null;
}

export const modelOf = (overview: Overview): HostModel => ({ ...overview, cpu: {}, lastLook: null });

const replaced = <T extends { readonly id: string | null }>(all: readonly T[], one: T): T[] =>
  all.some(({ id }) => id === one.id) ? all.map((each) => (each.id === one.id ? one : each)) : [...all, one];

const without = <T extends { readonly id: string | null }>(all: readonly T[], id: string | null): T[] =>
  all.filter((each) => each.id !== id);

/** The model after an event. Unknown events change nothing. `nowMs`: any clock that does not go back. */
export function afterEvent(
  model: HostModel | null,
  type: string,
  data: unknown,
  nowMs: number,
): HostModel | null {
  if (type === 'state') {
    const next = modelOf(data as Overview);
    // What was measured before a reconnection still counts.
    return model === null ? next : { ...next, cpu: model.cpu, lastLook: model.lastLook };
  }
  if (model === null) return null;
  if (type === 'machine-ended') {
    const { id } = (data as { machine: Machine }).machine;
    return { ...model, machines: without(model.machines, id) };
  }
  if (type.startsWith('machine-'))
    return { ...model, machines: replaced(model.machines, (data as { machine: Machine }).machine) };
  if (type === 'snapshot-removed')
    return { ...model, snapshots: without(model.snapshots, (data as { snapshot: Snapshot }).snapshot.id) };
  if (type.startsWith('snapshot-'))
    return { ...model, snapshots: replaced(model.snapshots, (data as { snapshot: Snapshot }).snapshot) };
  if (type === 'job') return { ...model, jobs: replaced(model.jobs, (data as { job: Job }).job) };
  if (type === 'job-removed') return { ...model, jobs: without(model.jobs, (data as { id: string }).id) };
  if (type === 'store') return { ...model, store: data as Overview['store'] };
  if (type === 'unique-bytes') return { ...model, uniqueBytes: data as Overview['uniqueBytes'] };
  if (type === 'usage') return afterUsage(model, data as Usage, nowMs);
  return model;
}

function afterUsage(model: HostModel, usage: Usage, nowMs: number): HostModel {
  const { lastLook } = model;
  const cpu: Record<string, Samples> = {};
  const cpuSeconds: Record<string, number> = {};
  const seconds = lastLook === null ? 0 : (nowMs - lastLook.atMs) / 1000;
  // Looks that follow each other closely would measure nothing but their own noise.
  const isSample = seconds >= 1;
  for (const [id, now] of Object.entries(usage)) {
    const before = lastLook?.cpuSeconds[id];
    const samples = model.cpu[id] ?? [];
    const used = before === undefined ? null : Math.max(0, (now.cpuSeconds - before) / seconds);
    cpu[id] = isSample && used !== null ? [...samples, used].slice(-MAX_SAMPLES) : samples;
    cpuSeconds[id] = isSample || before === undefined ? now.cpuSeconds : before;
  }
  return {
    ...model,
    machines: model.machines.map((machine) => {
      const now = machine.id === null ? undefined : usage[machine.id];
      return now === undefined ? machine : { ...machine, ...now };
    }),
    cpu,
    lastLook: { atMs: isSample || lastLook === null ? nowMs : lastLook.atMs, cpuSeconds },
  };
}

/** Machines that a person should look at first. */
export const failedMachines = ({ machines }: Overview): Machine[] =>
  machines.filter(({ state }) => state === 'failed' || state === 'gone' || state === 'unresponsive');

export const liveMachines = ({ machines }: Overview): Machine[] =>
  machines.filter(({ state }) => state === 'running' || state === 'paused' || state === 'starting');

const WEEK_MS = 7 * 24 * 60 * 60 * 1000;

/**
 * The percentage of the stored data that no check has read, or in which it found damage. Null: there is none, or all
 * snapshots are younger than a week, or a check runs.
 */
export function unverifiedPercent({ store, snapshots, jobs }: Overview, nowMs: number): number | null {
  if (store === null || jobs.some(({ kind, state }) => kind === 'check' && state === 'running')) return null;
  if (!snapshots.some(({ createdAt }) => nowMs - Date.parse(createdAt) > WEEK_MS)) return null;
  const { packBytes, verifiedBytes } = store;
  const percent = Math.round((100 * (packBytes - verifiedBytes)) / packBytes);
  return percent > 0 ? percent : null;
}

export const sum = (values: Iterable<number>): number => {
  let total = 0;
  for (const value of values) total += value;
  return total;
};

/** The processor use of all machines, of one processor. Null: not measured yet. */
export function totalCpu({ cpu, machines }: HostModel): number | null {
  const known = machines.flatMap(({ id }) => cpu[id ?? '']?.at(-1) ?? []);
  return known.length === 0 ? null : sum(known);
}
