/**
 * Reads the profile of this host, once a process.
 *
 * Thread: any. It takes about a millisecond, or ten where the host is itself a VM, in which each CPUID instruction traps.
 *
 * A VM without memory is made and closed on the way, because only a VM knows the rate of its TSC.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { release, totalmem } from 'node:os';
import { SystemError } from '../../errors.js';
import {
  addVcpu,
  closeMachine,
  createMachine,
  type KvmMachine,
  machineIoctl,
  vcpuIoctl,
  xsaveSizeBytes,
} from '../../native/kvm.js';
import { Ioctl, Msr } from '../kvm/abi.js';
import { type CpuidEntry, supportedCpuid } from '../kvm/cpuid.js';
import { describeHost, type HostKvm } from '../kvm/host.js';
import { getCpuid, getFeatureMsrs, listedMsrs, type MsrValue, setCpuid } from '../kvm/vcpu-state.js';
import { TSC_DEADLINE_BIT } from './cpu-features.js';
import type { HostProfile } from './host-profile.js';

/** MSRs of features that a guest reads once and keeps relying on. */
export const FEATURE_MSRS = [Msr.IA32_ARCH_CAPABILITIES, Msr.IA32_PERF_CAPABILITIES] as const;

/** The entry of the first processor is within the first page of /proc/cpuinfo. */
const CPUINFO_BYTES = 4096;

let known: HostProfile | undefined;

/** @throws LivesnapError NO_KVM */
export function profileOfThisHost(): HostProfile {
  known ??= readProfile();
  return known;
}

function readProfile(): HostProfile {
  const host = describeHost();
  const machine = createMachine();
  try {
    const cpuinfo = readCpuinfo();
    const field = (label: string): string | null =>
      new RegExp(`^${label}\\s*: (.*)$`, 'm').exec(cpuinfo)?.[1]?.slice(0, 100) ?? null;
    return {
      kvm: host.kind,
      processor: field('model name'),
      microcode: field('microcode'),
      kernel: release(),
      tscKhz: tscRate(machine),
      tscControl: host.tscControl,
      maxCpus: host.maxCpus,
      memoryBytes: totalmem(),
      xsaveBytes: xsaveSizeBytes(machine),
      cpuid: offeredCpuid(machine, host),
      msrs: listedMsrs(),
      featureMsrs: readFeatures(),
    };
  } finally {
    closeMachine(machine);
  }
}

function readCpuinfo(): string {
  const fd = openSync('/proc/cpuinfo', 'r');
  try {
    const bytes = new Uint8Array(CPUINFO_BYTES);
    return new TextDecoder().decode(bytes.subarray(0, readSync(fd, bytes)));
  } finally {
    closeSync(fd);
  }
}

/** Kernels before 5.18 answer a vCPU only. */
function tscRate(machine: KvmMachine): number {
  try {
    return machineIoctl(machine, Ioctl.GET_TSC_KHZ, 0);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    return vcpuIoctl(machine, addVcpu(machine), Ioctl.GET_TSC_KHZ, 0);
  }
}

/**
 * The CPUID that KVM supports. The TSC-deadline timer is a capability of its own in older kernels. A PVM host adds what it
 * shows to every guest.
 */
function offeredCpuid(machine: KvmMachine, host: HostKvm): CpuidEntry[] {
  const supported = supportedCpuid();
  const shown = host.kind === 'pvm' ? shownCpuid(machine, supported) : [];
  return supported.map((entry) => {
    const { function: leaf, index } = entry;
    const also = shown.find((other) => other.function === leaf && other.index === index);
    const deadline = leaf === 1 && host.tscDeadlineTimer ? 1 << TSC_DEADLINE_BIT : 0;
    const isMask = leaf === 0x1 || leaf === 0x7 || (leaf === 0xd && index === 1);
    if (also === undefined || !isMask) return { ...entry, ecx: (entry.ecx | deadline) >>> 0 };
    const either = (register: 'eax' | 'ebx' | 'ecx' | 'edx'): number =>
      (entry[register] | also[register]) >>> 0;
    return {
      ...entry,
      eax: leaf === 0x1 ? entry.eax : either('eax'),
      ebx: leaf === 0x7 ? either('ebx') : entry.ebx,
      ecx: leaf === 0xd ? entry.ecx : (either('ecx') | deadline) >>> 0,
      edx: leaf === 0xd ? entry.edx : either('edx'),
    };
  });
}

/** The CPUID that a vCPU has after it was given the supported one. */
function shownCpuid(machine: KvmMachine, supported: readonly CpuidEntry[]): CpuidEntry[] {
  const vcpu = addVcpu(machine);
  setCpuid(machine, vcpu, supported);
  return getCpuid(machine, vcpu);
}

/** Kernels before 4.17 know no feature MSRs: then none are compared. */
function readFeatures(): MsrValue[] {
  try {
    return getFeatureMsrs(FEATURE_MSRS);
  } catch (error) {
    if (error instanceof SystemError) return [];
    throw error;
  }
}
