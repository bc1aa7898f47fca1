/**
 * What this host's KVM is and can do, asked of the kernel once a process.
 */
import { closeSync, existsSync, openSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import { kvmIoctl } from '../../native/kvm.js';
import { Capability, Ioctl } from './abi.js';

/** How KVM runs guests here. PVM ("pagetable virtual machine") needs no hardware help and emulates kernel mode. */
export type KvmKind = 'vmx' | 'svm' | 'pvm' | 'unknown';

export interface HostKvm {
  readonly kind: KvmKind;
  /** KVM_GET_API_VERSION; always 12. */
  readonly apiVersion: number;
  readonly maxCpus: number;
  /** Can KVM run a guest at another TSC rate than the host's? */
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

/**
 * @throws LivesnapError NO_KVM when /dev/kvm is missing, may not be opened, or is not the KVM that livesnap knows.
 */
export function describeHost(): HostKvm {
  if (known) return known;
  checkDevice();
  const has = (capability: number): number => kvmIoctl(Ioctl.CHECK_EXTENSION, capability);
  const apiVersion = kvmIoctl(Ioctl.GET_API_VERSION, 0);
  if (apiVersion !== API_VERSION) {
    throw new LivesnapError(
      'NO_KVM',
      `/dev/kvm speaks version ${apiVersion} of KVM's API, not ${API_VERSION}`,
      {
        hint: 'Run a Linux kernel of this century with its own KVM module.',
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
      throw new LivesnapError('NO_KVM', 'this user may not open /dev/kvm', {
        hint: 'Add the user to the group that owns it (usually: sudo usermod -aG kvm $USER) and log in again.',
        cause: error,
      });
    }
    throw new LivesnapError('NO_KVM', `/dev/kvm cannot be opened: this host has no KVM (${code})`, {
      hint: 'Load kvm_intel or kvm_amd, switch on virtualization in the firmware, or allow nesting if this host is itself a VM; livesnap doctor tells more.',
      cause: error,
    });
  }
}
