/** What is known of the machines of this host: of those that run, and of those that ended without being cleaned up. */
import { runRoot } from '../environment.js';
import { LivesnapError } from '../errors.js';
import { haveLabels, type Labels } from '../labels.js';
import { MachineClient } from '../machine/client.js';
import type { SaveJob } from '../machine/control-api.js';
import { listRunDirectories, type MachineRecord, type RunDirectory } from '../machine/run-directory.js';
import type { MachineState } from '../vmm/machine-types.js';

/** How long a machine's process may take to answer before it is shown as `unresponsive`. */
const ANSWER_TIMEOUT_MS = 3000;

export interface MachineInfo {
  /** Null: the machine is starting. */
  readonly id: string | null;
  readonly name: string;
  readonly labels: Labels;
  readonly pid: number | null;
  /** `gone`: its process died. `failed`: it ended with an error. `starting`: it does not run yet. */
  readonly state: MachineState | 'starting' | 'unresponsive' | 'failed' | 'gone';
  readonly memoryBytes: number | null;
  readonly cpus: number | null;
  /** Of the guest's memory, what the host has given so far. Null: it does not answer. */
  readonly touchedBytes: number | null;
  /** Processor time of its process. Null: it does not answer. */
  readonly cpuSeconds: number | null;
  /** Of RAM and disks, what may differ from `snapshot`. Null: there is none, it does not answer, or KVM cannot tell. */
  readonly dirtyBytes: number | null;
  /** ISO 8601, UTC. */
  readonly startedAt: string | null;
  /** When its lifetime ends. */
  readonly endsAt: string | null;
  /** When it failed. Null: it has not, or its process died without a word. */
  readonly failedAt: string | null;
  /** Its saves that run, and the last ones that have ended. Empty if it does not answer. */
  readonly saves: readonly SaveJob[];
  /** The snapshot that it was last saved to or restored from. */
  readonly snapshot: string | null;
  /** The error, if the state is `failed`; why the host paused it, if the state is `paused`. */
  readonly reason?: string;
}

export interface MachineFilter {
  /** Labels that a machine must have; null stands for any value. */
  readonly labels?: Readonly<Record<string, string | null>> | undefined;
  readonly states?: readonly MachineInfo['state'][] | undefined;
}

const fromRecord = (name: string, record: MachineRecord | null): MachineInfo => ({
  id: record?.id ?? null,
  name,
  labels: record?.labels ?? {},
  pid: record?.pid ?? null,
  state: 'gone',
  memoryBytes: record?.memoryBytes ?? null,
  cpus: record?.cpus ?? null,
  touchedBytes: null,
  cpuSeconds: null,
  dirtyBytes: null,
  startedAt: record?.startedAt ?? null,
  endsAt: null,
  failedAt: null,
  saves: [],
  snapshot: record?.snapshot ?? null,
});

/** Null: there is no such machine any more. */
export async function machineInfo(directory: RunDirectory): Promise<MachineInfo | null> {
  const { name } = directory;
  const found = await directory.look();
  if (found === 'absent') return null;
  const record = await directory.readRecord();
  const known = fromRecord(name, record);
  if (found === 'dead')
    return record?.failure
      ? { ...known, state: 'failed', reason: record.failure, failedAt: record.failedAt ?? null }
      : known;
  try {
    const machine = await new MachineClient(directory).describe(ANSWER_TIMEOUT_MS);
    const { id, labels, pid, state, memoryBytes, cpus, startedAt, endsAt, snapshot, problem } = machine;
    const { touchedBytes, cpuSeconds, dirtyBytes, saves } = machine;
    const about = { id, name, labels, pid, state, memoryBytes, cpus, touchedBytes, cpuSeconds };
    const info = { ...about, dirtyBytes, startedAt, endsAt, failedAt: null, snapshot, saves };
    return problem ? { ...info, reason: problem } : info;
  } catch (error) {
    const now = await directory.look();
    if (now === 'absent') return null;
    if (now === 'dead') return known;
    const hasEnded = error instanceof LivesnapError && error.code === 'MACHINE_GONE';
    return { ...known, state: record === null ? 'starting' : hasEnded ? 'stopped' : 'unresponsive' };
  }
}

/** By name. */
export async function machineInfos({ labels = {}, states }: MachineFilter = {}): Promise<MachineInfo[]> {
  const all = await Promise.all((await listRunDirectories(runRoot())).map(machineInfo));
  return all.filter(
    (info): info is MachineInfo =>
      info !== null && haveLabels(info.labels, labels) && (states?.includes(info.state) ?? true),
  );
}
