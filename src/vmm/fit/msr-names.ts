/** Names of model-specific registers, and of the bits of IA32_ARCH_CAPABILITIES (Intel SDM vol. 4; Linux, msr-index.h). */

const MSR_NAMES: Readonly<Record<number, string>> = {
  16: 'IA32_TSC',
  52: 'SMI_COUNT',
  58: 'IA32_FEATURE_CONTROL',
  59: 'IA32_TSC_ADJUST',
  72: 'IA32_SPEC_CTRL',
  139: 'microcode revision',
  206: 'PLATFORM_INFO',
  225: 'IA32_UMWAIT_CONTROL',
  266: 'IA32_ARCH_CAPABILITIES',
  290: 'IA32_TSX_CTRL',
  320: 'MISC_FEATURES_ENABLES',
  416: 'IA32_MISC_ENABLE',
  452: 'IA32_XFD',
  453: 'IA32_XFD_ERR',
  631: 'IA32_PAT',
  837: 'IA32_PERF_CAPABILITIES',
  909: 'IA32_FIXED_CTR_CTRL',
  911: 'IA32_PERF_GLOBAL_CTRL',
  1009: 'IA32_PEBS_ENABLE',
  1392: 'IA32_RTIT_CTL',
  1696: 'IA32_U_CET',
  1698: 'IA32_S_CET',
  1760: 'IA32_TSC_DEADLINE',
  3472: 'IA32_BNDCFGS',
  3488: 'IA32_XSS',
  1263947008: 'KVM wall clock',
  1263947009: 'KVM system time',
  1263947010: 'KVM async page faults',
  1263947011: 'KVM steal time',
  1263947012: 'KVM PV EOI',
  1263947013: 'KVM poll control',
  1263947014: 'KVM async page faults by interrupt',
  1263947015: 'KVM async page fault acknowledgment',
  1263947016: 'KVM migration control',
  3221225731: 'TSC_AUX',
  3221225732: 'AMD TSC ratio',
  3221291295: 'VIRT_SPEC_CTRL',
};

/** `0x10a (IA32_ARCH_CAPABILITIES)`. */
export function msrName(index: number): string {
  const name = MSR_NAMES[index];
  return `0x${index.toString(16)}${name === undefined ? '' : ` (${name})`}`;
}

const ARCH_CAPABILITY_NAMES: Readonly<Record<number, string>> = {
  0: 'RDCL_NO',
  1: 'IBRS_ALL',
  4: 'SSB_NO',
  5: 'MDS_NO',
  6: 'PSCHANGE_MC_NO',
  7: 'TSX_CTRL',
  8: 'TAA_NO',
  13: 'SBDR_SSDP_NO',
  14: 'FBSDP_NO',
  15: 'PSDP_NO',
  17: 'FB_CLEAR',
  18: 'FB_CLEAR_CTRL',
  20: 'BHI_NO',
  24: 'PBRSB_NO',
  25: 'GDS_CTRL',
  26: 'GDS_NO',
  27: 'RFDS_NO',
  28: 'RFDS_CLEAR',
  62: 'ITS_NO',
};

/**
 * Bits that a guest relies on. Left out are those that tell of a weakness (RSBA, RRSBA) and those for hypervisors
 * (SKIP_L1DFL_VMENTRY).
 */
export const RELIED_ON_ARCH_CAPABILITIES: bigint = Object.keys(ARCH_CAPABILITY_NAMES).reduce(
  (mask, bit) => mask | (1n << BigInt(bit)),
  0n,
);

export const archCapabilityNames = (bits: bigint): string[] =>
  Object.entries(ARCH_CAPABILITY_NAMES)
    .filter(([bit]) => ((bits >> BigInt(bit)) & 1n) === 1n)
    .map(([, name]) => name);
