/**
 * Virtual machines inside the guest. Their state (KVM_GET_NESTED_STATE) is not saved, so new guests have no VMX or SVM
 * (cpuid.ts). A guest in a snapshot of an earlier livesnap may have them. It keeps its CPUID, because a kernel does not
 * expect a processor to lose a feature, and the user gets a notice if the guest had enabled VMX or SVM.
 */
import type { VcpuState } from './vcpu-state.js';

/** VMX operation may be entered (Intel SDM vol. 3, 2.5) and SVM is on (AMD APM vol. 2, 3.1.7). */
const CR4_VMXE = 1n << 13n;
const EFER_SVME = 1n << 12n;

/** Notices for the user about a restored guest with these vCPUs. */
export function nestedNotices(vcpus: readonly Pick<VcpuState, 'sregs'>[]): string[] {
  const inUse = vcpus.some(
    ({ sregs: { control } }) => (control.cr4 & CR4_VMXE) !== 0n || (control.efer & EFER_SVME) !== 0n,
  );
  return inUse
    ? [
        'the guest had enabled VMX or SVM, and the snapshot lacks the state of virtual machines inside the guest: they are lost. Reboot the guest before it runs any.',
      ]
    : [];
}
