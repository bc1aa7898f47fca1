/**
 * The CPUID of a guest: the host's processor as KVM supports it, with an APIC ID for each vCPU, and one socket of
 * one-thread cores (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E).
 */
import { kvmIoctl } from '../../native/kvm.js';
import { Ioctl } from './abi.js';
import type { HostKvm } from './host.js';
import { type Fields, readStruct, type Struct, sizeOf, writeStruct } from './struct.js';

/** struct kvm_cpuid_entry2 without its padding. */
export const CPUID_ENTRY = {
  function: 4,
  index: 4,
  flags: 4,
  eax: 4,
  ebx: 4,
  ecx: 4,
  edx: 4,
} as const satisfies Fields;
export type CpuidEntry = Struct<typeof CPUID_ENTRY>;

const HEADER_BYTES = 8;
const ENTRY_BYTES = sizeOf(CPUID_ENTRY) + 12;
/** More than any KVM has (KVM_MAX_CPUID_ENTRIES is 256). */
export const MAX_CPUID_ENTRIES = 256;

export function emptyCpuid(entries = MAX_CPUID_ENTRIES): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + entries * ENTRY_BYTES);
  new DataView(bytes.buffer).setUint32(0, entries, true);
  return bytes;
}

export function decodeCpuid(bytes: Uint8Array): CpuidEntry[] {
  const count = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  return Array.from({ length: count }, (_, i) =>
    readStruct(CPUID_ENTRY, bytes, HEADER_BYTES + i * ENTRY_BYTES),
  );
}

export function encodeCpuid(entries: readonly CpuidEntry[]): Uint8Array {
  const bytes = emptyCpuid(entries.length);
  entries.forEach((entry, i) => {
    writeStruct(CPUID_ENTRY, entry, bytes, HEADER_BYTES + i * ENTRY_BYTES);
  });
  return bytes;
}

export function supportedCpuid(): CpuidEntry[] {
  const bytes = emptyCpuid();
  kvmIoctl(Ioctl.GET_SUPPORTED_CPUID, bytes);
  return decodeCpuid(bytes);
}

const bit = (n: number): number => (1 << n) >>> 0;
const withBit = (word: number, n: number, on: boolean): number => (on ? word | bit(n) : word & ~bit(n)) >>> 0;

/** Feature bits by their names in the SDM and APM. */
const Leaf1Ecx = {
  vmx: 5,
  fma: 12,
  cx16: 13,
  pcid: 17,
  x2apic: 21,
  popcnt: 23,
  tscDeadline: 24,
  xsave: 26,
  osxsave: 27,
  avx: 28,
  f16c: 29,
  rdrand: 30,
  hypervisor: 31,
};
const Leaf1Edx = { htt: 28 };
const Leaf80000001Ecx = { svm: 2 };
/** Bits in EBX of leaf 7 that work only in ring 3 of a PVM guest, or need XSAVE, which its kernel cannot run. */
const Leaf7EbxNotOnPvm = [0, 5, 7, 9, 10, 16, 17, 18, 20, 21, 28, 30, 31];
const Leaf7EcxNotOnPvm = [1, 2, 6, 9, 10, 11, 12, 14, 16];
/** Linux, Documentation/virt/kvm/x86/cpuid.rst. */
export const KVM_FEATURES_LEAF = 0x4000_0001;
/**
 * Bits in EAX of KVM's leaf that make a guest's kernel use hypercalls: PV_UNHALT, PV_SEND_IPI, PV_SCHED_YIELD. PVM
 * executes vmcall in kernel mode again and again without an end.
 */
const KvmFeaturesNotOnPvm = [7, 11, 13];

/**
 * The CPUID of the vCPU `apicId` of `cpus`. It is the host's, with these changes:
 * - The hypervisor bit, and the TSC-deadline timer where KVM's LAPIC has it, are set.
 * - The topology is `cpus` one-thread cores in one socket.
 * - VMX and SVM are cleared, because the state of virtual machines inside the guest is not saved (nested.ts). Without
 *   the bits KVM refuses the guest their MSRs and instructions as well.
 * - On a PVM host, features that the emulator cannot run are cleared. KVM sets some of them again, so the command line
 *   disables them too (pvm.ts).
 */
export function guestCpuid(
  supported: readonly CpuidEntry[],
  apicId: number,
  cpus: number,
  host: Pick<HostKvm, 'kind' | 'tscDeadlineTimer'>,
): CpuidEntry[] {
  const pvm = host.kind === 'pvm';
  const coreBits = Math.ceil(Math.log2(Math.max(cpus, 1)));
  return supported.flatMap((original) => {
    const entry = { ...original };
    switch (entry.function) {
      case 0x1: {
        // EBX: initial APIC id, logical processors of the package (8 bits each), CLFLUSH size, brand.
        entry.ebx = (((apicId & 0xff) << 24) | (Math.min(cpus, 255) << 16) | (entry.ebx & 0xffff)) >>> 0;
        entry.ecx = withBit(entry.ecx, Leaf1Ecx.hypervisor, true);
        entry.ecx = withBit(entry.ecx, Leaf1Ecx.vmx, false);
        entry.ecx = withBit(entry.ecx, Leaf1Ecx.tscDeadline, host.tscDeadlineTimer);
        entry.edx = withBit(entry.edx, Leaf1Edx.htt, cpus > 1);
        if (pvm) {
          const { fma, cx16, pcid, popcnt, xsave, osxsave, avx, f16c, rdrand } = Leaf1Ecx;
          for (const n of [fma, cx16, pcid, popcnt, xsave, osxsave, avx, f16c, rdrand])
            entry.ecx = withBit(entry.ecx, n, false);
        }
        return [entry];
      }
      case 0x4:
        // EAX[31:26]: cores of the package, minus one (Intel's deterministic cache leaf).
        if ((entry.eax & 0x1f) !== 0)
          entry.eax = ((entry.eax & 0x03ff_ffff) | (Math.min(cpus - 1, 63) << 26)) >>> 0;
        return [entry];
      case 0x7:
        if (pvm && entry.index === 0) {
          for (const n of Leaf7EbxNotOnPvm) entry.ebx = withBit(entry.ebx, n, false);
          for (const n of Leaf7EcxNotOnPvm) entry.ecx = withBit(entry.ecx, n, false);
          entry.edx = withBit(entry.edx, 4, false); // FSRM
        }
        return [entry];
      case 0xb:
      case 0x1f: {
        // Extended topology: thread level, core level, end. All are made from the first subleaf.
        if (entry.index !== 0) return [];
        const level = (index: number, shift: number, processors: number, type: number): CpuidEntry => ({
          ...entry,
          index,
          flags: 1, // KVM_CPUID_FLAG_SIGNIFCANT_INDEX
          eax: shift,
          ebx: processors,
          ecx: (type << 8) | index,
          edx: apicId,
        });
        return [level(0, 0, 1, 1), level(1, coreBits, cpus, 2), level(2, 0, 0, 0)];
      }
      case 0xd:
        if (pvm) return [{ ...entry, eax: 0, ebx: 0, ecx: 0, edx: 0 }];
        return [entry];
      case KVM_FEATURES_LEAF:
        if (pvm) for (const n of KvmFeaturesNotOnPvm) entry.eax = withBit(entry.eax, n, false);
        return [entry];
      case 0x8000_0001:
        entry.ecx = withBit(entry.ecx, Leaf80000001Ecx.svm, false);
        return [entry];
      case 0x8000_000a:
        // SVM revision and features.
        return [{ ...entry, eax: 0, ebx: 0, ecx: 0, edx: 0 }];
      case 0x8000_0007:
        // A PVM guest sees the host's TSC, which jumps at a restore. It is marked as not invariant, so that Linux keeps
        // kvm-clock.
        if (pvm) entry.edx = withBit(entry.edx, 8, false);
        return [entry];
      case 0x8000_0008:
        // ECX (AMD): NC[7:0] is threads minus one, ApicIdSize[15:12].
        entry.ecx = ((entry.ecx & ~0xf0ff) | Math.min(cpus - 1, 255) | (coreBits << 12)) >>> 0;
        return [entry];
      case 0x8000_001e:
        // Extended APIC id, compute unit, node (AMD).
        entry.eax = apicId;
        entry.ebx = apicId & 0xff;
        entry.ecx = 0;
        return [entry];
      default:
        return [entry];
    }
  });
}
