/** What an exit that ends a machine is called, in a sentence a person can act on. */
import { ExitReason } from './abi.js';

const REASONS: Record<number, string> = {
  [ExitReason.DEBUG]: 'a debug exit',
  [ExitReason.HLT]: 'a halt that KVM did not keep to itself',
  [ExitReason.FAIL_ENTRY]: 'the processor refused its state',
  [ExitReason.INTERNAL_ERROR]: 'an internal error of KVM',
  [ExitReason.SYSTEM_EVENT]: 'a system event',
  [ExitReason.X86_RDMSR]: 'an unexpected read of an MSR',
  [ExitReason.X86_WRMSR]: 'an unexpected write of an MSR',
};

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

export function describeFailedInstruction(vcpu: number, rip: bigint, instruction: Uint8Array): string {
  const bytes = Array.from(instruction, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
  return `KVM cannot run the instruction ${bytes} at ${hex(rip)} (vCPU ${vcpu})`;
}

export function describeExit(
  vcpu: number,
  rip: bigint,
  exit: { reason: number; runFailed: boolean; detail: number; suberror: number },
): string {
  const at = `at rip ${hex(rip)}`;
  if (exit.runFailed) return `KVM_RUN of vCPU ${vcpu} failed with errno ${exit.detail} ${at}`;
  const name = REASONS[exit.reason] ?? `an exit livesnap does not know (reason ${exit.reason})`;
  return `vCPU ${vcpu} stopped ${at}: ${name} (suberror ${exit.suberror}, detail ${hex(exit.detail)})`;
}
