/** Describes an exit that ends a machine, in a sentence that a person can act on. */
import { ExitReason, INTERNAL_ERROR_EMULATION } from './abi.js';
import type { KvmKind } from './host.js';

const REASONS: Record<number, string> = {
  [ExitReason.DEBUG]: 'a debug exit',
  [ExitReason.HLT]: 'an unexpected HLT exit',
  [ExitReason.FAIL_ENTRY]: 'the processor refused its state',
  [ExitReason.INTERNAL_ERROR]: 'an internal error of KVM',
  [ExitReason.SYSTEM_EVENT]: 'a system event',
  [ExitReason.X86_RDMSR]: 'an unexpected read of an MSR',
  [ExitReason.X86_WRMSR]: 'an unexpected write of an MSR',
};

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

/** Of the kinds of KVM, those that leave the vCPU as it was at a triple fault. kvm_amd resets it before it exits. */
const KEEPS_RIP: readonly KvmKind[] = ['vmx', 'pvm'];

/** The guest's own way to reset the machine, meant or not. */
export function describeTripleFault(kind: KvmKind, vcpu: number, rip: bigint): string {
  const at = KEEPS_RIP.includes(kind) ? ` at rip ${hex(rip)}` : '';
  return `vCPU ${vcpu} reset the machine by a triple fault${at}`;
}

export interface FatalExit {
  readonly reason: number;
  /** KVM_RUN itself failed; `detail` is its errno. */
  readonly runFailed: boolean;
  readonly detail: number;
  readonly suberror: number;
  /** What KVM's emulator could not run, when that is the reason and KVM says so. */
  readonly instruction: Uint8Array | null;
}

export function describeExit(vcpu: number, rip: bigint, exit: FatalExit): string {
  if (exit.reason === ExitReason.INTERNAL_ERROR && exit.suberror === INTERNAL_ERROR_EMULATION) {
    const where = `at ${hex(rip)} (vCPU ${vcpu})`;
    if (!exit.instruction) return `KVM cannot run the instruction ${where} and does not say what it is`;
    const bytes = Array.from(exit.instruction, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
    return `KVM cannot run the instruction ${bytes} ${where}`;
  }
  const at = `at rip ${hex(rip)}`;
  if (exit.runFailed) return `KVM_RUN of vCPU ${vcpu} failed with errno ${exit.detail} ${at}`;
  const name = REASONS[exit.reason] ?? `an exit livesnap does not know (reason ${exit.reason})`;
  return `vCPU ${vcpu} stopped ${at}: ${name} (suberror ${exit.suberror}, detail ${hex(exit.detail)})`;
}
