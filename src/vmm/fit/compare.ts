/**
 * Compares what a snapshot needs with what a host has, before a VM exists.
 *
 * Refused is what KVM would refuse, and what a running guest cannot lose: it has looked at its CPUID and feature MSRs
 * once, and relies on them. Only worth a warning is what a guest copes with.
 *
 * Invariants:
 * - Pure: the host may be another one than this.
 * - A host that saved a snapshot fits it.
 */
import { Msr } from '../kvm/abi.js';
import { KVM_FEATURES_LEAF } from '../kvm/cpuid.js';
import { isSameTscRate, type MsrValue } from '../kvm/vcpu-state.js';
import {
  cpuidWord,
  FEATURE_WORDS,
  featureNames,
  modelOf,
  physicalAddressBits,
  stateNames,
  vendorOf,
  xcr0Mask,
  xssMask,
} from './cpu-features.js';
import type { HostProfile } from './host-profile.js';
import { archCapabilityNames, msrName, RELIED_ON_ARCH_CAPABILITIES } from './msr-names.js';
import { firstCpuid, type SnapshotNeeds } from './snapshot-needs.js';

export interface FitFinding {
  /** `refuse`: the snapshot cannot be restored there. */
  readonly level: 'refuse' | 'warn';
  /** What does not fit: `TSC rate`. */
  readonly thing: string;
  readonly need: string;
  readonly have: string;
  /** What the user can do, in whole sentences. */
  readonly help: string;
}

type Finding = Omit<FitFinding, 'level'>;

/** All findings, those that refuse first. */
export function compareFit(needs: SnapshotNeeds, host: HostProfile): FitFinding[] {
  const found = (level: FitFinding['level'], checks: readonly Check[]): FitFinding[] =>
    checks.flatMap((check) => check(needs, host)).map((finding) => ({ level, ...finding }));
  return [...found('refuse', REFUSING), ...found('warn', WARNING)];
}

type Check = (needs: SnapshotNeeds, host: HostProfile) => readonly Finding[];

const only = (isWrong: boolean, finding: () => Finding): readonly Finding[] => (isWrong ? [finding()] : []);

/** More than a real snapshot can lack of a real host. One that was made up may lack any number. */
const MAX_LISTED = 150;

const listed = (names: readonly string[]): string =>
  names.length <= MAX_LISTED
    ? names.join(', ')
    : `${names.slice(0, MAX_LISTED).join(', ')} and ${names.length - MAX_LISTED} more`;

const vendor: Check = (needs, host) => {
  const [need, have] = [vendorOf(firstCpuid(needs)), vendorOf(host.cpuid)];
  return only(need !== have, () => ({
    thing: 'processor vendor',
    need,
    have,
    help: 'Use a host with a processor of that vendor.',
  }));
};

/** A kernel that booted on VMX or SVM uses instructions that PVM's emulator lacks. Its CPUID cannot tell. */
const kind: Check = ({ savedOn }, { kvm }) =>
  only(kvm === 'pvm' && (savedOn.kvm === 'vmx' || savedOn.kvm === 'svm'), () => ({
    thing: 'kind of KVM',
    need: `hardware virtualization (${savedOn.kvm})`,
    have: 'PVM, which cannot run the kernel of such a guest',
    help: 'Use a host with hardware virtualization.',
  }));

/** Bits of a feature word that some vCPU was given and the host lacks, by name. */
function lacking(needs: SnapshotNeeds, host: HostProfile, isMeant: (leaf: number) => boolean): string[] {
  return FEATURE_WORDS.filter((word) => isMeant(word.function)).flatMap((word) => {
    const { function: leaf, index, register, mask } = word;
    const need = needs.vcpus.reduce((all, { cpuid }) => all | cpuidWord(cpuid, leaf, index, register), 0);
    return featureNames(word, (need & mask & ~cpuidWord(host.cpuid, leaf, index, register)) >>> 0);
  });
}

const features: Check = (needs, host) => {
  const names = lacking(needs, host, (leaf) => leaf !== KVM_FEATURES_LEAF);
  return only(names.length > 0, () => ({
    thing: 'processor features',
    need: listed(names),
    have: 'none of these',
    help: 'Use a host whose processor and kernel have these features. A machine that is started with --cpu-template has fewer, so that its snapshots fit more hosts.',
  }));
};

const kvmFeatures: Check = (needs, host) => {
  const names = lacking(needs, host, (leaf) => leaf === KVM_FEATURES_LEAF);
  return only(names.length > 0, () => ({
    thing: 'features of KVM',
    need: listed(names),
    have: 'none of these',
    help: 'Use a host with a newer kernel, or the kernel of the host that saved the snapshot.',
  }));
};

/** Intel SDM vol. 2, CPUID leaf 0xA: version, number of general counters; number of fixed counters. */
const performanceCounters: Check = (needs, host) => {
  const of = (cpuid: HostProfile['cpuid']) => {
    const eax = cpuidWord(cpuid, 0xa, 0, 'eax');
    return [eax & 0xff, (eax >>> 8) & 0xff, cpuidWord(cpuid, 0xa, 0, 'edx') & 0x1f] as const;
  };
  const [need, have] = [of(firstCpuid(needs)), of(host.cpuid)];
  const text = ([version, general, fixed]: readonly [number, number, number]) =>
    `version ${version} with ${general} general and ${fixed} fixed counters`;
  return only(
    need.some((count, i) => count > have[i]!),
    () => ({
      thing: 'performance counters',
      need: text(need),
      have: text(have),
      help: 'Use a host with the same processor model, and with the performance counters of KVM enabled.',
    }),
  );
};

const MAX_XCRS = 16;

/** XCR0 in struct kvm_xcrs: a count, flags, then pairs of a number and a value. */
function xcr0Of(xcrs: Uint8Array): bigint {
  const view = new DataView(xcrs.buffer, xcrs.byteOffset, xcrs.byteLength);
  const count = Math.min(view.getUint32(0, true), MAX_XCRS);
  for (let i = 0; i < count; i++)
    if (view.getUint32(8 + 16 * i, true) === 0) return view.getBigUint64(16 + 16 * i, true);
  return 0n;
}

/** States that the guest has enabled, and those that its CPUID lets it enable. */
const extendedStates: Check = ({ vcpus }, host) => {
  const xcr0 = vcpus.reduce((all, { cpuid, xcrs }) => all | xcr0Of(xcrs) | xcr0Mask(cpuid), 0n);
  const xss = vcpus.reduce((all, { cpuid }) => all | xssMask(cpuid), 0n);
  const names = stateNames((xcr0 & ~xcr0Mask(host.cpuid)) | (xss & ~xssMask(host.cpuid)));
  const sizeBytes = Math.max(...vcpus.map(({ xsave }) => xsave.length));
  return [
    ...only(names.length > 0, () => ({
      thing: 'extended processor states (XSAVE)',
      need: listed(names),
      have: 'none of these',
      help: 'Use a host whose processor and KVM have these states.',
    })),
    ...only(sizeBytes > host.xsaveBytes, () => ({
      thing: 'size of the XSAVE area',
      need: `${sizeBytes} bytes`,
      have: `${host.xsaveBytes} bytes`,
      help: 'Use a host whose processor has all features of the one that saved the snapshot.',
    })),
  ];
};

const addressWidth =
  (isWrong: (need: number, have: number, needs: SnapshotNeeds) => boolean, help: string): Check =>
  (needs, host) => {
    const [need, have] = [physicalAddressBits(firstCpuid(needs)), physicalAddressBits(host.cpuid)];
    return only(isWrong(need, have, needs), () => ({
      thing: 'physical addresses (MAXPHYADDR)',
      need: `${need} bits`,
      have: `${have} bits`,
      help,
    }));
  };

const mhz = (khz: number): string => `${(khz / 1000).toFixed(3).replace(/\.?0+$/, '')} MHz`;

const tscRate: Check = ({ vcpus }, { tscKhz, tscControl }) => {
  const rates = [...new Set(vcpus.map((vcpu) => vcpu.tscKhz))].filter(
    (rate) => !tscControl && !isSameTscRate(tscKhz, rate),
  );
  return rates.map((rate) => ({
    thing: 'TSC rate',
    need: mhz(rate),
    have: `${mhz(tscKhz)} and cannot scale it`,
    help: `Use a host whose TSC runs at ${mhz(rate)}, or whose KVM has TSC scaling.`,
  }));
};

/** A value of 0 is left out by a restore, so only others must be settable. */
const settableMsrs: Check = ({ vcpus }, { msrs }) => {
  const can = new Set(msrs);
  const missing = new Set(
    vcpus.flatMap((vcpu) =>
      vcpu.msrs.filter(({ index, value }) => value !== 0n && !can.has(index)).map(({ index }) => index),
    ),
  );
  return only(missing.size > 0, () => ({
    thing: 'model-specific registers',
    need: listed([...missing].map(msrName)),
    have: 'a KVM that cannot set them',
    help: 'Use a host with the same processor model, and with the same or a newer kernel.',
  }));
};

const ARCH_CAPABILITIES_BIT = 29;

/** Freedom from vulnerabilities, and ways to mitigate them, on which the guest's kernel has settled. */
const archCapabilities: Check = ({ vcpus }, { featureMsrs }) => {
  const valueIn = (msrs: readonly MsrValue[]): bigint | undefined =>
    msrs.find(({ index }) => index === Msr.IA32_ARCH_CAPABILITIES)?.value;
  const have = valueIn(featureMsrs);
  if (have === undefined) return [];
  const need = vcpus
    .filter(({ cpuid }) => ((cpuidWord(cpuid, 7, 0, 'edx') >>> ARCH_CAPABILITIES_BIT) & 1) === 1)
    .reduce((all, { msrs }) => all | (valueIn(msrs) ?? 0n), 0n);
  const names = archCapabilityNames(need & RELIED_ON_ARCH_CAPABILITIES & ~have);
  return only(names.length > 0, () => ({
    thing: `${msrName(Msr.IA32_ARCH_CAPABILITIES)} bits`,
    need: listed(names),
    have: 'none of these',
    help: 'Use a host whose processor, microcode and kernel have these properties.',
  }));
};

const vcpuCount: Check = ({ cpus }, { maxCpus }) =>
  only(cpus > maxCpus, () => ({
    thing: 'vCPUs',
    need: String(cpus),
    have: `at most ${maxCpus}`,
    help: 'Use a host whose KVM permits as many.',
  }));

const memory: Check = ({ memoryBytes }, host) =>
  only(memoryBytes > host.memoryBytes, () => ({
    thing: 'memory',
    need: `${memoryBytes} bytes`,
    have: `${host.memoryBytes} bytes`,
    help: 'Use a host with more memory.',
  }));

const REFUSING: readonly Check[] = [
  vendor,
  kind,
  features,
  kvmFeatures,
  performanceCounters,
  extendedStates,
  addressWidth((need, have) => need > have, 'Use a host with at least as many bits.'),
  tscRate,
  settableMsrs,
  archCapabilities,
  vcpuCount,
  memory,
];

const model: Check = (needs, host) => {
  const text = (cpuid: HostProfile['cpuid']): string => {
    const { family, model: number, stepping } = modelOf(cpuid);
    return `family ${family}, model ${number}, stepping ${stepping}`;
  };
  const [need, have] = [text(firstCpuid(needs)), text(host.cpuid)];
  return only(vendorOf(firstCpuid(needs)) === vendorOf(host.cpuid) && need !== have, () => ({
    thing: 'processor model',
    need,
    have,
    help: 'The guest keeps the model that it knows, with its work-arounds. Reboot the guest if it should learn of the new one.',
  }));
};

const differing =
  (
    thing: string,
    help: string,
    of: (from: { kernel: string | null; microcode: string | null }) => string | null,
  ): Check =>
  ({ savedOn }, host) => {
    const [need, have] = [of(savedOn), of(host)];
    return need === null || have === null || need === have ? [] : [{ thing, need, have, help }];
  };

const leavesPvm: Check = ({ savedOn }, { kvm }) =>
  only(savedOn.kvm === 'pvm' && kvm !== 'pvm', () => ({
    thing: 'kind of KVM',
    need: 'PVM',
    have: kvm,
    help: 'The guest keeps the features and options that it got for PVM. Reboot it to use all of the processor.',
  }));

const WARNING: readonly Check[] = [
  model,
  leavesPvm,
  addressWidth(
    (need, have, { hasTemplate }) => need < have && !hasTemplate,
    'The guest may miss faults for reserved bits of its page tables. Programs do not depend on them.',
  ),
  differing(
    'microcode',
    'Update the older one if the processors are the same model.',
    ({ microcode }) => microcode,
  ),
  differing(
    'kernel',
    'Usually nothing: kernels keep the state of guests compatible.',
    ({ kernel }) => kernel,
  ),
];
