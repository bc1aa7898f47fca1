/**
 * Workarounds for PVM hosts. PVM ("pagetable virtual machine") runs guests without hardware virtualization: ring 3
 * natively, kernel mode in KVM's instruction emulator, which is slow and lacks some instructions.
 *
 * Thread: the device thread, except {@link pvmCmdline}.
 *
 * On such hosts only:
 * - The kernel command line gets options that keep Linux from using the missing instructions.
 * - int3 (in Linux's self-test and text patching) and fwait, which no option avoids, are finished here.
 * - A timer deadline is at least {@link MIN_DEADLINE_MS} away, because a guest whose tick takes longer than the time to
 *   the next one makes no progress.
 */
import { type KvmMachine, vcpuIoctl } from '../../native/kvm.js';
import { withKernelOptions } from '../boot/kernel-options.js';
import { Ioctl, Msr } from './abi.js';
import { queueBreakpoint } from './breakpoint.js';
import { getMsrs, getRegs, setMsrs, setRegs } from './vcpu-state.js';

const MIN_DEADLINE_MS = 40;

/** The options that a Linux guest needs on PVM. An option that the user gave is not added. */
const CMDLINE = [
  // XSAVE (154) and its users fail in the emulator, and CPUID cannot hide them all from the guest. Linux passes an
  // option without `=` that is none of its parameters to init, and a shell as init would take noxsave for a script.
  // So XSAVE is cleared by its number, which kernels that know no names understand.
  'clearcpuid=110,111,154,erms,fsrm,smap,smep,umip,cx16,popcnt,rdrand,rdseed',
  'mitigations=off',
  // Kernel text is patched without remapping.
  'rodata=off',
  'norandmaps',
];

/** `cmdline` with the options that PVM needs. */
export function pvmCmdline(cmdline: string): string {
  const given = new Set(cmdline.split(/\s+/).map((option) => option.split('=')[0]));
  const missing = CMDLINE.filter((option) => !given.has(option.split('=')[0]!));
  return withKernelOptions(cmdline, missing);
}

const INT3 = 0xcc;
const FWAIT = 0x9b;

/**
 * Finishes the instruction that the emulator could not run, during the vCPU's exit. Returns false for any instruction
 * but int3 and fwait.
 */
export function finishInstruction(machine: KvmMachine, vcpu: number, instruction: Uint8Array): boolean {
  const opcode = instruction[0];
  if (opcode !== INT3 && opcode !== FWAIT) return false;
  const regs = getRegs(machine, vcpu);
  setRegs(machine, vcpu, { ...regs, rip: regs.rip + 1n });
  if (opcode === INT3) queueBreakpoint(machine, vcpu);
  return true;
}

/** Writes the guest's TSC deadline, at least {@link MIN_DEADLINE_MS} from now; 0 disarms the timer. */
export function setDeadline(machine: KvmMachine, vcpu: number, deadline: bigint): void {
  if (deadline === 0n) {
    setMsrs(machine, vcpu, [{ index: Msr.IA32_TSC_DEADLINE, value: 0n }]);
    return;
  }
  const tscKhz = vcpuIoctl(machine, vcpu, Ioctl.GET_TSC_KHZ, 0);
  const earliest = getMsrs(machine, vcpu, [Msr.IA32_TSC])[0]!.value + BigInt(tscKhz * MIN_DEADLINE_MS);
  setMsrs(machine, vcpu, [
    { index: Msr.IA32_TSC_DEADLINE, value: deadline > earliest ? deadline : earliest },
  ]);
}
