/**
 * Constants of KVM's ABI, with their names in Linux (include/uapi/linux/kvm.h, arch/x86/include/uapi/asm/kvm.h).
 */

const NONE = 0;
const WRITE = 1;
const READ = 2;

/** _IOC of asm-generic/ioctl.h for KVM's letter 0xAE. */
const ioc = (direction: number, number: number, sizeBytes: number): number =>
  ((direction << 30) | (sizeBytes << 16) | (0xae << 8) | number) >>> 0;

export const Ioctl = {
  GET_API_VERSION: ioc(NONE, 0x00, 0),
  CHECK_EXTENSION: ioc(NONE, 0x03, 0),
  GET_MSR_INDEX_LIST: ioc(READ | WRITE, 0x02, 4),
  GET_SUPPORTED_CPUID: ioc(READ | WRITE, 0x05, 8),
  SET_TSS_ADDR: ioc(NONE, 0x47, 0),
  SET_IDENTITY_MAP_ADDR: ioc(WRITE, 0x48, 8),
  CREATE_IRQCHIP: ioc(NONE, 0x60, 0),
  IRQ_LINE: ioc(WRITE, 0x61, 8),
  GET_IRQCHIP: ioc(READ | WRITE, 0x62, 520),
  SET_IRQCHIP: ioc(READ, 0x63, 520),
  CREATE_PIT2: ioc(WRITE, 0x77, 64),
  SET_CLOCK: ioc(WRITE, 0x7b, 48),
  GET_CLOCK: ioc(READ, 0x7c, 48),
  GET_REGS: ioc(READ, 0x81, 144),
  SET_REGS: ioc(WRITE, 0x82, 144),
  GET_SREGS: ioc(READ, 0x83, 312),
  SET_SREGS: ioc(WRITE, 0x84, 312),
  GET_MSRS: ioc(READ | WRITE, 0x88, 8),
  SET_MSRS: ioc(WRITE, 0x89, 8),
  GET_LAPIC: ioc(READ, 0x8e, 1024),
  SET_LAPIC: ioc(WRITE, 0x8f, 1024),
  SET_CPUID2: ioc(WRITE, 0x90, 8),
  GET_CPUID2: ioc(READ | WRITE, 0x91, 8),
  GET_MP_STATE: ioc(READ, 0x98, 4),
  SET_MP_STATE: ioc(WRITE, 0x99, 4),
  SET_GUEST_DEBUG: ioc(WRITE, 0x9b, 72),
  GET_VCPU_EVENTS: ioc(READ, 0x9f, 64),
  SET_VCPU_EVENTS: ioc(WRITE, 0xa0, 64),
  GET_PIT2: ioc(READ, 0x9f, 112),
  SET_PIT2: ioc(WRITE, 0xa0, 112),
  GET_DEBUGREGS: ioc(READ, 0xa1, 128),
  SET_DEBUGREGS: ioc(WRITE, 0xa2, 128),
  SET_TSC_KHZ: ioc(NONE, 0xa2, 0),
  GET_TSC_KHZ: ioc(NONE, 0xa3, 0),
  GET_XSAVE: ioc(READ, 0xa4, 4096),
  SET_XSAVE: ioc(WRITE, 0xa5, 4096),
  GET_XCRS: ioc(READ, 0xa6, 392),
  SET_XCRS: ioc(WRITE, 0xa7, 392),
  KVMCLOCK_CTRL: ioc(NONE, 0xad, 0),
  GET_XSAVE2: ioc(READ, 0xcf, 4096),
} as const;

export const Capability = {
  ADJUST_CLOCK: 39,
  TSC_CONTROL: 60,
  MAX_VCPUS: 66,
  TSC_DEADLINE_TIMER: 72,
  X86_USER_SPACE_MSR: 188,
  EXIT_ON_EMULATION_FAILURE: 204,
  XSAVE2: 208,
} as const;

/** Flag of struct kvm_clock_data, and of the value of ADJUST_CLOCK: `realtime` is the host's wall clock. */
export const CLOCK_REALTIME = 1 << 2;

/** Argument of X86_USER_SPACE_MSR: exits for MSRs that the filter denies. */
export const MSR_EXIT_REASON_FILTER = 1 << 2;

export const ExitReason = {
  IO: 2,
  DEBUG: 4,
  HLT: 5,
  MMIO: 6,
  SHUTDOWN: 8,
  FAIL_ENTRY: 9,
  INTERNAL_ERROR: 17,
  SYSTEM_EVENT: 24,
  X86_RDMSR: 29,
  X86_WRMSR: 30,
} as const;

/** `suberror` of INTERNAL_ERROR: KVM cannot emulate an instruction. */
export const INTERNAL_ERROR_EMULATION = 1;

/** Model-specific registers by their architectural names. */
export const Msr = {
  IA32_TSC: 0x10,
  PLATFORM_INFO: 0xce,
  IA32_ARCH_CAPABILITIES: 0x10a,
  IA32_MISC_ENABLE: 0x1a0,
  IA32_PERF_CAPABILITIES: 0x345,
  IA32_TSC_DEADLINE: 0x6e0,
} as const;

/** Addresses for KVM's own pages (Intel only): below 4 GiB, outside RAM and the APICs. */
export const TSS_ADDRESS = 0xfffb_d000;
export const IDENTITY_MAP_ADDRESS = 0xfffb_c000;
