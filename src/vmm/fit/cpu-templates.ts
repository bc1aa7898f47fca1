/**
 * CPU templates: a guest's processor with fewer features than the host's, so that its snapshots fit more hosts of the same
 * vendor.
 *
 * `x86-64-v2` and `x86-64-v3` give programs the instructions of these micro-architecture levels and no others (x86-64
 * psABI, "Micro-Architecture Levels"); `minimal` gives the baseline. Beside them a kernel gets what it needs, and the
 * mitigations that every host of the vendor has with current microcode.
 *
 * Invariants:
 * - A bit that a template does not name is cleared, also one that this file does not know.
 * - No template shows an immunity (IA32_ARCH_CAPABILITIES), because the next host may lack it.
 * - What was set is read back: {@link differences}.
 *
 * Spec: cpu-features.ts; Intel SDM vol. 4 for the MSRs.
 */
import { LivesnapError } from '../../errors.js';
import { Msr } from '../kvm/abi.js';
import type { CpuidEntry } from '../kvm/cpuid.js';
import type { MsrValue } from '../kvm/vcpu-state.js';
import type { CpuTemplate } from '../machine-types.js';
import { cpuidWord, FEATURE_WORDS, featureNames, physicalAddressBits, vendorOf } from './cpu-features.js';
import type { HostProfile } from './host-profile.js';
import { msrName } from './msr-names.js';

/** Names of features, as in cpu-features.ts. */
const words = (names: string): readonly string[] => names.split(' ').map((name) => name.replaceAll('~', ' '));

const BASELINE = words('FPU TSC MSR PAE CMPXCHG8B CMOV FXSR MMX SSE SSE2 SYSCALL long~mode NX');
const LEVEL_2 = words('SSE3 SSSE3 SSE4.1 SSE4.2 POPCNT CMPXCHG16B LAHF');
const LEVEL_3 = words('AVX AVX2 BMI1 BMI2 F16C FMA LZCNT MOVBE XSAVE');

/** What the programs of a level rely on. A host without them cannot give the template. */
const REQUIRED: Record<CpuTemplate, readonly string[]> = {
  minimal: BASELINE,
  'x86-64-v2': [...BASELINE, ...LEVEL_2],
  'x86-64-v3': [...BASELINE, ...LEVEL_2, ...LEVEL_3],
};

/** For kernels, where the host has them. */
const FOR_KERNELS = words(
  'VME DE PSE MCE APIC SEP MTRR PGE MCA PAT PSE-36 CLFLUSH x2APIC TSC-deadline~timer ARAT invariant~TSC',
);
const FOR_KERNELS_FROM_LEVEL_2 = words('SMEP SMAP FSGSBASE TSC_ADJUST RDTSCP 1-GiB~pages');
const FOR_XSAVE = words('XSAVEOPT XSAVEC XGETBV1');
/** Those of Linux 5.4. */
const OF_KVM = words(
  'KVM:~old~kvmclock KVM:~no~I/O~delay KVM:~kvmclock KVM:~steal~time KVM:~PV~EOI KVM:~PV~unhalt KVM:~PV~TLB~flush KVM:~PV~send~IPI KVM:~poll~control KVM:~PV~sched~yield KVM:~stable~kvmclock',
);

interface VendorTemplate {
  readonly mitigations: readonly string[];
  readonly fromLevel2: readonly string[];
}

const VENDORS: Readonly<Record<string, VendorTemplate>> = {
  GenuineIntel: {
    mitigations: words('MD_CLEAR IBRS/IBPB STIBP SSBD ARCH_CAPABILITIES'),
    fromLevel2: words('PCID INVPCID ERMS'),
  },
  AuthenticAMD: {
    mitigations: words('IBPB AMD~STIBP AMD~SSBD serializing~LFENCE'),
    fromLevel2: words('TOPOEXT'),
  },
};

function allowedFeatures(
  template: CpuTemplate,
  { mitigations, fromLevel2 }: VendorTemplate,
): ReadonlySet<string> {
  return new Set([
    ...REQUIRED[template],
    ...FOR_KERNELS,
    ...OF_KVM,
    ...mitigations,
    ...(template === 'minimal' ? [] : [...FOR_KERNELS_FROM_LEVEL_2, ...fromLevel2]),
    ...(template === 'x86-64-v3' ? FOR_XSAVE : []),
  ]);
}

function vendorTemplate(template: CpuTemplate, cpuid: readonly CpuidEntry[]): VendorTemplate {
  const vendor = vendorOf(cpuid);
  const found = Object.hasOwn(VENDORS, vendor) ? VENDORS[vendor] : undefined;
  if (found !== undefined) return found;
  throw new LivesnapError('HOST_LACKS', `there is no CPU template ${template} for processors of ${vendor}`, {
    hint: `Start the machine without --cpu-template. Templates exist for ${Object.keys(VENDORS).join(' and ')}.`,
  });
}

/** @throws LivesnapError HOST_LACKS when the host cannot give the template, naming why */
export function requireTemplate(template: CpuTemplate, host: Pick<HostProfile, 'kvm' | 'cpuid'>): void {
  if (host.kvm === 'pvm')
    throw new LivesnapError(
      'HOST_LACKS',
      `a PVM host cannot give the CPU template ${template}: its guests always see all features of the host`,
      { hint: 'Start the machine without --cpu-template, or on a host with hardware virtualization.' },
    );
  vendorTemplate(template, host.cpuid);
  const has = new Set(
    FEATURE_WORDS.flatMap((word) =>
      featureNames(word, cpuidWord(host.cpuid, word.function, word.index, word.register)),
    ),
  );
  const missing = REQUIRED[template].filter((name) => !has.has(name));
  if (missing.length > 0)
    throw new LivesnapError(
      'HOST_LACKS',
      `this host cannot give the CPU template ${template}: it lacks ${missing.join(', ')}`,
      { hint: 'Use a smaller template, or a host whose processor and KVM have these features.' },
    );
}

/** Bits that are no features: the hypervisor bit and the topology. A template keeps them. */
const KEPT: Readonly<Record<string, number>> = {
  '1.ecx': 1 << 31,
  '1.edx': 1 << 28,
  '2147483649.ecx': 1 << 1,
};
/** Leaves of features that only some processors have: performance counters, caches' control, SGX, PT, AMX, SVM, SEV. */
const CLEARED_LEAVES: readonly number[] = [
  0x5, 0xa, 0xf, 0x10, 0x12, 0x14, 0x19, 0x1c, 0x1d, 0x1e, 0x24, 0x8000_000a, 0x8000_001b, 0x8000_001c,
  0x8000_001f, 0x8000_0020, 0x8000_0022,
];
/** Leaves of which all words are features. A word that cpu-features.ts does not know is cleared. */
const FEATURE_LEAVES: readonly number[] = [0x7, 0x8000_0007, 0x8000_0021];
/** As QEMU gives by default: enough for a terabyte, and not more than any server has. */
const ADDRESS_BITS = 40;
/** x87, SSE and AVX, with the size of their XSAVE area. */
const AVX_STATES = 0x7;
const AVX_AREA_BYTES = 832;
const AVX_COMPONENT = 2;

/** The CPUID of a guest with a template, made from the one without. `memoryEnd`: the first address after its RAM. */
export function applyTemplate(
  template: CpuTemplate,
  cpuid: readonly CpuidEntry[],
  memoryEnd: number,
): CpuidEntry[] {
  const allowed = allowedFeatures(template, vendorTemplate(template, cpuid));
  const isClear = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
  return cpuid.map((entry) => {
    const { function: leaf, index } = entry;
    if (CLEARED_LEAVES.includes(leaf)) return { ...entry, ...isClear };
    if (leaf === 0xd && index !== 1) return { ...entry, ...extendedState(template, entry) };
    const made: { -readonly [K in keyof CpuidEntry]: CpuidEntry[K] } =
      FEATURE_LEAVES.includes(leaf) || leaf === 0xd
        ? { ...entry, ...isClear, ...(leaf === 0x7 && index === 0 ? { eax: Math.min(entry.eax, 2) } : {}) }
        : { ...entry };
    for (const word of FEATURE_WORDS.filter((word) => word.function === leaf && word.index === index)) {
      let value = (KEPT[`${leaf}.${word.register}`] ?? 0) & entry[word.register];
      for (let bit = 0; bit < 32; bit++) {
        const name = word.names[bit];
        if (name !== undefined && allowed.has(name)) value |= entry[word.register] & (1 << bit);
      }
      // AMD repeats bits of leaf 1 in the bits of this word that do not count.
      if (leaf === 0x8000_0001 && word.register === 'edx') value |= entry.edx & ~word.mask;
      made[word.register] = value >>> 0;
    }
    if (leaf === 0x8000_0008) {
      const needed = Math.ceil(Math.log2(memoryEnd));
      const bits = Math.min(physicalAddressBits(cpuid), Math.max(ADDRESS_BITS, needed));
      made.eax = ((entry.eax & ~0xff) | bits) >>> 0;
    }
    return made;
  });
}

function extendedState(template: CpuTemplate, { index, eax, ebx }: CpuidEntry): Partial<CpuidEntry> {
  if (template !== 'x86-64-v3') return { eax: 0, ebx: 0, ecx: 0, edx: 0 };
  if (index === 0) return { eax: eax & AVX_STATES, ebx: AVX_AREA_BYTES, ecx: AVX_AREA_BYTES, edx: 0 };
  return index === AVX_COMPONENT ? { eax, ebx, ecx: 0, edx: 0 } : { eax: 0, ebx: 0, ecx: 0, edx: 0 };
}

/** The bits that a template leaves in MSRs which tell a guest of features. */
const MSR_MASKS: readonly MsrValue[] = [
  // RSBA and RRSBA: weaknesses of the return predictor.
  { index: Msr.IA32_ARCH_CAPABILITIES, value: (1n << 2n) | (1n << 19n) },
  { index: Msr.PLATFORM_INFO, value: 0n },
  // Fast strings; branch trace and precise events are unavailable.
  { index: Msr.IA32_MISC_ENABLE, value: (1n << 0n) | (1n << 11n) | (1n << 12n) },
  { index: Msr.IA32_PERF_CAPABILITIES, value: 0n },
];

export const TEMPLATE_MSRS: readonly number[] = MSR_MASKS.map(({ index }) => index);

/** The values of {@link TEMPLATE_MSRS} for a guest, from those of a new vCPU. */
export const applyTemplateToMsrs = (msrs: readonly MsrValue[]): MsrValue[] =>
  msrs.map(({ index, value }) => ({
    index,
    value: value & (MSR_MASKS.find((mask) => mask.index === index)?.value ?? value),
  }));

export interface TemplateState {
  readonly cpuid: readonly CpuidEntry[];
  readonly msrs: readonly MsrValue[];
}

/** What KVM changed of what was set, by name. Only words of features count: KVM completes others. */
export function differences(set: TemplateState, got: TemplateState): string[] {
  const features = FEATURE_WORDS.flatMap((word) => {
    const { function: leaf, index, register, mask } = word;
    const changed = cpuidWord(set.cpuid, leaf, index, register) ^ cpuidWord(got.cpuid, leaf, index, register);
    return featureNames(word, (changed & mask) >>> 0);
  });
  const msrs = set.msrs.filter(
    ({ index, value }) => got.msrs.find((msr) => msr.index === index)?.value !== value,
  );
  return [...features, ...msrs.map(({ index }) => `MSR ${msrName(index)}`)];
}

/** @throws LivesnapError HOST_LACKS, naming what KVM gave in another way than it was set */
export function requireTaken(template: CpuTemplate, set: TemplateState, got: TemplateState): void {
  const names = differences(set, got);
  if (names.length > 0)
    throw new LivesnapError(
      'HOST_LACKS',
      `this host's KVM does not keep to the CPU template ${template}: it changes ${names.join(', ')}`,
      { hint: 'Start the machine without --cpu-template, or on a host with another kernel.' },
    );
}
