/**
 * Virtual machines inside the guest. Their state (KVM_GET_NESTED_STATE) is not saved, so a guest is not offered VMX or
 * SVM (cpuid.ts). A snapshot of an earlier livesnap may be of a guest that was: it is restored with the CPUID that its
 * kernel read at boot, because a kernel does not expect a processor to lose a feature, and a user is told when that
 * guest had switched it on.
 */
import type { VcpuState } from './vcpu-state.js';

/** VMX operation may be entered (Intel SDM vol. 3, 2.5) and SVM is on (AMD APM vol. 2, 3.1.7). */
const CR4_VMXE = 1n << 13n;
const EFER_SVME = 1n << 12n;

/** What a user must know of a guest with these vCPUs, in sentences. */
export function nestedNotices(vcpus: readonly Pick<VcpuState, 'sregs'>[]): string[] {
  const inUse = vcpus.some(
    ({ sregs: { control } }) => (control.cr4 & CR4_VMXE) !== 0n || (control.efer & EFER_SVME) !== 0n,
  );
  return inUse
    ? [
        'the guest had VMX or SVM switched on when it was saved, and the snapshot lacks the state of virtual machines inside it: they do not survive this restore; start the guest anew before it runs any',
      ]
    : [];
}
