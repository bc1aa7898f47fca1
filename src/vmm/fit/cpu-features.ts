/**
 * The CPUID bits that a guest may rely on, with the names by which people know them.
 *
 * Invariants:
 * - A bit of {@link FEATURE_WORDS} means: the processor has it, so a guest that was told so needs it.
 * - Left out are bits that KVM changes while the guest runs (OSXSAVE, OSPKE), bits of the topology (HTT, CMP_LEGACY), bits
 *   that repeat leaf 1 (AMD's 0x80000001 EDX), and bits that tell of something missing (FDP_EXCPTN_ONLY).
 *
 * Spec: Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E; Linux, Documentation/virt/kvm/x86/cpuid.rst.
 */
import { type CpuidEntry, KVM_FEATURES_LEAF } from '../kvm/cpuid.js';

type Register = 'eax' | 'ebx' | 'ecx' | 'edx';

interface FeatureWord {
  readonly function: number;
  readonly index: number;
  readonly register: Register;
  /** Names by bit. */
  readonly names: Readonly<Record<number, string>>;
  /** Bits that count. A bit without a name is shown by its number. */
  readonly mask: number;
}

/** Names from bit `first` on, separated by spaces; `-` is a bit without a name, `~` a space within a name. */
function named(first: number, names: string): Record<number, string> {
  return Object.fromEntries(
    names
      .split(' ')
      .map((name, i) => [first + i, name.replaceAll('~', ' ')] as const)
      .filter(([, name]) => name !== '-'),
  );
}

const bits = (...numbers: number[]): number => numbers.reduce((word, n) => (word | (1 << n)) >>> 0, 0);
const allBut = (...numbers: number[]): number => ~bits(...numbers) >>> 0;
const ALL = 0xffff_ffff;

/** Bits of CPUID that more than this file knows by position. */
export const TSC_DEADLINE_BIT = 24;
const HTT_BIT = 28;
const OSXSAVE_BIT = 27;
const HYPERVISOR_BIT = 31;

export const FEATURE_WORDS: readonly FeatureWord[] = [
  {
    function: 0x1,
    index: 0,
    register: 'edx',
    mask: allBut(HTT_BIT),
    names: named(
      0,
      'FPU VME DE PSE TSC MSR PAE MCE CMPXCHG8B APIC - SEP MTRR PGE MCA CMOV PAT PSE-36 PSN CLFLUSH - DS ACPI MMX FXSR SSE SSE2 SS - TM - PBE',
    ),
  },
  {
    function: 0x1,
    index: 0,
    register: 'ecx',
    mask: allBut(OSXSAVE_BIT, HYPERVISOR_BIT),
    names: named(
      0,
      'SSE3 PCLMULQDQ DTES64 MONITOR DS-CPL VMX SMX EIST TM2 SSSE3 CNXT-ID SDBG FMA CMPXCHG16B XTPR PDCM - PCID DCA SSE4.1 SSE4.2 x2APIC MOVBE POPCNT TSC-deadline~timer AES-NI XSAVE - AVX F16C RDRAND',
    ),
  },
  { function: 0x6, index: 0, register: 'eax', mask: bits(2), names: named(2, 'ARAT') },
  {
    function: 0x7,
    index: 0,
    register: 'ebx',
    mask: allBut(6, 13),
    names: named(
      0,
      'FSGSBASE TSC_ADJUST SGX BMI1 HLE AVX2 - SMEP BMI2 ERMS INVPCID RTM RDT-M - MPX RDT-A AVX-512F AVX-512DQ RDSEED ADX SMAP AVX-512IFMA PCOMMIT CLFLUSHOPT CLWB Intel~PT AVX-512PF AVX-512ER AVX-512CD SHA AVX-512BW AVX-512VL',
    ),
  },
  {
    function: 0x7,
    index: 0,
    register: 'ecx',
    mask: allBut(4, 17, 18, 19, 20, 21),
    names: {
      ...named(
        0,
        'PREFETCHWT1 AVX-512VBMI UMIP PKU - WAITPKG AVX-512VBMI2 CET-SS GFNI VAES VPCLMULQDQ AVX-512VNNI AVX-512BITALG TME AVX-512VPOPCNTDQ - LA57',
      ),
      ...named(22, 'RDPID Key~Locker bus-lock~detection CLDEMOTE - MOVDIRI MOVDIR64B ENQCMD SGX-LC PKS'),
    },
  },
  {
    function: 0x7,
    index: 0,
    register: 'edx',
    mask: ALL,
    names: {
      ...named(1, 'SGX-KEYS AVX-512-4VNNIW AVX-512-4FMAPS FSRM UINTR - - AVX-512-VP2INTERSECT SRBDS_CTRL'),
      ...named(
        10,
        'MD_CLEAR RTM_ALWAYS_ABORT - RTM_FORCE_ABORT SERIALIZE HYBRID TSXLDTRK - PCONFIG ARCH_LBR CET-IBT - AMX-BF16 AVX-512FP16 AMX-TILE AMX-INT8 IBRS/IBPB STIBP L1D_FLUSH ARCH_CAPABILITIES CORE_CAPABILITIES SSBD',
      ),
    },
  },
  {
    function: 0x7,
    index: 1,
    register: 'eax',
    mask: ALL,
    names: {
      ...named(0, 'SHA512 SM3 SM4 RAO-INT AVX-VNNI AVX-512BF16 LASS CMPCCXADD - - FZRM FSRS FSRC'),
      ...named(17, 'FRED LKGS WRMSRNS NMI_SRC AMX-FP16 HRESET AVX-IFMA - - LAM MSRLIST'),
    },
  },
  {
    function: 0x7,
    index: 1,
    register: 'edx',
    mask: ALL,
    names: named(
      4,
      'AVX-VNNI-INT8 AVX-NE-CONVERT - - AMX-COMPLEX - AVX-VNNI-INT16 - - - PREFETCHITI - - UIRET_UIF CET-SSS AVX10 - APX',
    ),
  },
  {
    function: 0x7,
    index: 2,
    register: 'edx',
    mask: ALL,
    names: named(0, 'PSFD IPRED_CTRL RRSBA_CTRL DDPD_U BHI_CTRL MCDT_NO UC-lock~disable'),
  },
  {
    function: 0xd,
    index: 1,
    register: 'eax',
    mask: ALL,
    names: named(0, 'XSAVEOPT XSAVEC XGETBV1 XSAVES XFD'),
  },
  {
    function: KVM_FEATURES_LEAF,
    index: 0,
    register: 'eax',
    mask: ALL,
    names: {
      ...named(
        0,
        'KVM:~old~kvmclock KVM:~no~I/O~delay KVM:~MMU~hypercalls KVM:~kvmclock KVM:~async~page~faults KVM:~steal~time KVM:~PV~EOI KVM:~PV~unhalt',
      ),
      ...named(
        9,
        'KVM:~PV~TLB~flush KVM:~async~page~faults~as~VM~exits KVM:~PV~send~IPI KVM:~poll~control KVM:~PV~sched~yield KVM:~async~page~faults~by~interrupt KVM:~MSI~extended~destinations KVM:~map~GPA~range KVM:~migration~control',
      ),
      24: 'KVM: stable kvmclock',
    },
  },
  {
    function: 0x8000_0001,
    index: 0,
    register: 'ecx',
    mask: allBut(1),
    names: named(
      0,
      'LAHF - SVM ExtApicSpace CR8_LEGACY LZCNT SSE4A MISALIGNSSE PREFETCHW OSVW IBS XOP SKINIT WDT - LWP FMA4 TCE - NODEID_MSR - TBM TOPOEXT PERFCTR_CORE PERFCTR_NB - BPEXT PTSC PERFCTR_LLC MWAITX',
    ),
  },
  {
    function: 0x8000_0001,
    index: 0,
    register: 'edx',
    mask: bits(11, 19, 20, 22, 25, 26, 27, 29, 30, 31),
    names: {
      11: 'SYSCALL',
      20: 'NX',
      22: 'MMXEXT',
      25: 'FFXSR',
      26: '1-GiB pages',
      27: 'RDTSCP',
      29: 'long mode',
      30: '3DNow!+',
      31: '3DNow!',
    },
  },
  { function: 0x8000_0007, index: 0, register: 'edx', mask: bits(8), names: { 8: 'invariant TSC' } },
  {
    function: 0x8000_0008,
    index: 0,
    register: 'ebx',
    mask: ALL,
    names: {
      ...named(0, 'CLZERO IRPERF XSAVEERPTR - RDPRU - - - - WBNOINVD - - IBPB - AMD~IBRS AMD~STIBP'),
      ...named(
        17,
        'STIBP_ALWAYS_ON IBRS~preferred IBRS~same~mode - - - - AMD~SSBD VIRT_SSBD SSB_NO - AMD~PSFD',
      ),
      30: 'IBPB_RET',
    },
  },
  {
    function: 0x8000_0021,
    index: 0,
    register: 'eax',
    mask: ALL,
    names: {
      ...named(
        0,
        'NO_NESTED_DATA_BP - serializing~LFENCE - - VERW_CLEAR NULL_SEL_CLR_BASE - AUTO_IBRS NO_SMM_CTL_MSR',
      ),
      ...named(18, 'PREFETCHI - - - - - - - - SBPB IBPB_BRTYPE SRSO_NO'),
    },
  },
];

/** The register of a leaf; 0 where CPUID has no such leaf. */
export function cpuidWord(
  cpuid: readonly CpuidEntry[],
  leaf: number,
  index: number,
  register: Register,
): number {
  return cpuid.find((entry) => entry.function === leaf && entry.index === index)?.[register] ?? 0;
}

const REGISTER_NAMES = { eax: 'EAX', ebx: 'EBX', ecx: 'ECX', edx: 'EDX' } as const;

/** The names of the bits of `word` that are set in `value`, in order. */
export function featureNames(word: FeatureWord, value: number): string[] {
  const found: string[] = [];
  for (let bit = 0; bit < 32; bit++) {
    if (((value >>> bit) & 1) === 0) continue;
    const { function: leaf, index, register } = word;
    found.push(
      word.names[bit] ??
        `CPUID leaf 0x${leaf.toString(16)}${index > 0 ? `.${index}` : ''} ${REGISTER_NAMES[register]} bit ${bit}`,
    );
  }
  return found;
}

/** Extended states of the processor by their bit in XCR0 and IA32_XSS (Intel SDM vol. 1, 13.1). */
const STATE_NAMES: Readonly<Record<number, string>> = {
  0: 'x87',
  1: 'SSE',
  2: 'AVX',
  3: 'MPX bounds',
  4: 'MPX configuration',
  5: 'AVX-512 masks',
  6: 'AVX-512 upper halves',
  7: 'AVX-512 registers 16 to 31',
  8: 'Intel PT',
  9: 'PKRU',
  11: 'CET user',
  12: 'CET supervisor',
  17: 'AMX tile configuration',
  18: 'AMX tiles',
  19: 'APX',
};

export function stateNames(mask: bigint): string[] {
  const found: string[] = [];
  for (let bit = 0; bit < 64; bit++)
    if (((mask >> BigInt(bit)) & 1n) === 1n) found.push(STATE_NAMES[bit] ?? `state component ${bit}`);
  return found;
}

const XSTATE_LEAF = 0xd;
const join = (high: number, low: number): bigint => (BigInt(high) << 32n) | BigInt(low);

/** The bits that XCR0 may have. */
export const xcr0Mask = (cpuid: readonly CpuidEntry[]): bigint =>
  join(cpuidWord(cpuid, XSTATE_LEAF, 0, 'edx'), cpuidWord(cpuid, XSTATE_LEAF, 0, 'eax'));

/** The bits that IA32_XSS may have. */
export const xssMask = (cpuid: readonly CpuidEntry[]): bigint =>
  join(cpuidWord(cpuid, XSTATE_LEAF, 1, 'edx'), cpuidWord(cpuid, XSTATE_LEAF, 1, 'ecx'));

/** MAXPHYADDR: bits of a physical address. Without the leaf it is 36 (Intel SDM vol. 3, 4.1.4). */
export const physicalAddressBits = (cpuid: readonly CpuidEntry[]): number =>
  cpuidWord(cpuid, 0x8000_0008, 0, 'eax') & 0xff || 36;

/** `GenuineIntel`, `AuthenticAMD`. Unprintable bytes become dots, since a snapshot may hold any. */
export function vendorOf(cpuid: readonly CpuidEntry[]): string {
  const bytes = new Uint8Array(12);
  const view = new DataView(bytes.buffer);
  (['ebx', 'edx', 'ecx'] as const).forEach((register, i) => {
    view.setUint32(4 * i, cpuidWord(cpuid, 0, 0, register), true);
  });
  return String.fromCharCode(...bytes.map((byte) => (byte >= 0x20 && byte < 0x7f ? byte : 0x2e)));
}

export interface ProcessorModel {
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
}

/** Family, model and stepping as people count them (Intel SDM vol. 2, CPUID, figure 3-6). */
export function modelOf(cpuid: readonly CpuidEntry[]): ProcessorModel {
  const signature = cpuidWord(cpuid, 1, 0, 'eax');
  const base = (signature >>> 8) & 0xf;
  const family = base === 0xf ? base + ((signature >>> 20) & 0xff) : base;
  const extended = base === 0xf || base === 0x6 ? ((signature >>> 16) & 0xf) << 4 : 0;
  return { family, model: extended | ((signature >>> 4) & 0xf), stepping: signature & 0xf };
}
