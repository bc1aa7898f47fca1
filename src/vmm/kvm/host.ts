/** The kind and capabilities of this host's KVM. A process asks the kernel once. */
import { closeSync, existsSync, openSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import { kvmIoctl } from '../../native/kvm.js';
import { Capability, Ioctl } from './abi.js';

/** How KVM runs guests here. PVM ("pagetable virtual machine") needs no hardware support and emulates kernel mode. */
export type KvmKind = 'vmx' | 'svm' | 'pvm' | 'unknown';

export interface HostKvm {
  readonly kind: KvmKind;
  /** KVM_GET_API_VERSION; always 12. */
  readonly apiVersion: number;
  readonly maxCpus: number;
  /** Whether KVM can run a guest at another TSC rate than the host's. */
  readonly tscControl: boolean;
  readonly tscDeadlineTimer: boolean;
}

const MODULES: readonly [string, KvmKind][] = [
  ['kvm_pvm', 'pvm'],
  ['kvm_intel', 'vmx'],
  ['kvm_amd', 'svm'],
];

const API_VERSION = 12;
let known: HostKvm | undefined;

/** @throws LivesnapError NO_KVM when /dev/kvm is missing, cannot be opened, or has another API version */
export function describeHost(): HostKvm {
  if (known) return known;
  checkDevice();
  const has = (capability: number): number => kvmIoctl(Ioctl.CHECK_EXTENSION, capability);
  const apiVersion = kvmIoctl(Ioctl.GET_API_VERSION, 0);
  if (apiVersion !== API_VERSION) {
    throw new LivesnapError(
      'NO_KVM',
      `/dev/kvm has API version ${apiVersion}; livesnap needs version ${API_VERSION}`,
      {
        hint: 'Use the KVM module of a Linux kernel from 2.6.22 on.',
      },
    );
  }
  known = {
    kind: MODULES.find(([module]) => existsSync(`/sys/module/${module}`))?.[1] ?? 'unknown',
    apiVersion,
    maxCpus: has(Capability.MAX_VCPUS) || 4,
    tscControl: has(Capability.TSC_CONTROL) !== 0,
    tscDeadlineTimer: has(Capability.TSC_DEADLINE_TIMER) !== 0,
  };
  return known;
}

function checkDevice(): void {
  try {
    closeSync(openSync('/dev/kvm', 'r+'));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EACCES' || code === 'EPERM') {
      throw new LivesnapError('NO_KVM', 'this user has no permission to open /dev/kvm', {
        hint: 'Add the user to the group that owns /dev/kvm (usually: sudo usermod -aG kvm $USER), then log in again.',
        cause: error,
      });
    }
    throw new LivesnapError('NO_KVM', `/dev/kvm cannot be opened: this host has no working KVM (${code})`, {
      hint: 'Load kvm_intel or kvm_amd, enable virtualization in the firmware, or enable nesting if this host is itself a VM. See livesnap doctor.',
      cause: error,
    });
  }
}
