/** Describes an exit that ends a machine, in one sentence for the user. */
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

/** The kinds of KVM that keep the registers of a vCPU at a triple fault. kvm_amd resets them before the exit. */
const KEEPS_RIP: readonly KvmKind[] = ['vmx', 'pvm'];

/** A triple fault resets the machine, whether the guest intended it or not. */
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
  /** The instruction that KVM's emulator could not run, if that is the reason and KVM gives the bytes. */
  readonly instruction: Uint8Array | null;
}

export function describeExit(vcpu: number, rip: bigint, exit: FatalExit): string {
  if (exit.reason === ExitReason.INTERNAL_ERROR && exit.suberror === INTERNAL_ERROR_EMULATION) {
    const where = `at ${hex(rip)} (vCPU ${vcpu})`;
    if (!exit.instruction) return `KVM cannot run the instruction ${where} and gives no instruction bytes`;
    const bytes = Array.from(exit.instruction, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
    return `KVM cannot run the instruction ${bytes} ${where}`;
  }
  const at = `at rip ${hex(rip)}`;
  if (exit.runFailed) return `KVM_RUN of vCPU ${vcpu} failed with errno ${exit.detail} ${at}`;
  const name = REASONS[exit.reason] ?? `an unknown exit reason, ${exit.reason}`;
  return `vCPU ${vcpu} stopped ${at}: ${name} (suberror ${exit.suberror}, detail ${hex(exit.detail)})`;
}
