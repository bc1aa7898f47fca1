/**
 * What a snapshot needs of a host: the state of its vCPUs tells nearly all of it. The description tells where it was saved,
 * which only warnings use, so snapshots of older versions are compared as well.
 *
 * Invariant: state and description are checked before (machine-state.ts, saved-machine.ts), and here the field `host`.
 */
import { object, optional, parse } from '../../schema.js';
import type { CpuidEntry } from '../kvm/cpuid.js';
import type { KvmKind } from '../kvm/host.js';
import type { VcpuState } from '../kvm/vcpu-state.js';
import type { MachineConfig } from '../machine-types.js';
import { invalidState } from '../saved-state.js';
import { modelOf, physicalAddressBits, vendorOf } from './cpu-features.js';
import { type HostProfile, hostName } from './host-profile.js';

export type VcpuNeeds = Pick<VcpuState, 'cpuid' | 'xcrs' | 'xsave' | 'msrs' | 'tscKhz'>;

/** Where a snapshot was saved. Null: it does not tell. */
export interface SavedHost {
  readonly kvm: KvmKind;
  readonly kernel: string | null;
  readonly microcode: string | null;
}

export interface SnapshotNeeds {
  readonly vcpus: readonly VcpuNeeds[];
  readonly cpus: number;
  readonly memoryBytes: number;
  /** Whether the guest has fewer features and address bits than its host on purpose. */
  readonly hasTemplate: boolean;
  readonly savedOn: SavedHost;
}

const name = optional(hostName);

/** As in the description of a snapshot, so that errors name a field by its path there. */
const DESCRIPTION = object({
  host: object({ kvm: name, kernel: name, microcode: name }, { others: 'ignore' }),
});

const KINDS: readonly string[] = ['vmx', 'svm', 'pvm'] satisfies KvmKind[];

/** Checks the field `host` of a snapshot's description. Errors: BAD_STATE, naming the field at fault. */
export function readSavedHost(host: unknown): SavedHost {
  const checked = parse(DESCRIPTION, { host: host ?? {} }, (wrong) => invalidState(wrong.message)).host;
  const { kvm = '', kernel = null, microcode = null } = checked;
  return { kvm: KINDS.includes(kvm) ? (kvm as KvmKind) : 'unknown', kernel, microcode };
}

export const needsOf = (
  vcpus: readonly VcpuNeeds[],
  { cpus, memoryBytes, cpuTemplate }: Pick<MachineConfig, 'cpus' | 'memoryBytes' | 'cpuTemplate'>,
  savedOn: SavedHost,
): SnapshotNeeds => ({ vcpus, cpus, memoryBytes, hasTemplate: cpuTemplate !== undefined, savedOn });

/** The host of a save, for the snapshot's description. `show` prints it, and {@link readSavedHost} reads it back. */
export function describeSavingHost(host: HostProfile, where: { hostname: string; arch: string }) {
  const { kvm, kernel, processor, microcode, tscKhz, tscControl, cpuid } = host;
  return {
    kvm,
    ...where,
    kernel,
    processor,
    vendor: vendorOf(cpuid),
    ...modelOf(cpuid),
    microcode,
    physicalAddressBits: physicalAddressBits(cpuid),
    tscKhz,
    tscControl,
  };
}

/** The CPUID of the first vCPU. The others differ in their topology only. */
export const firstCpuid = ({ vcpus }: SnapshotNeeds): readonly CpuidEntry[] => vcpus[0]?.cpuid ?? [];
