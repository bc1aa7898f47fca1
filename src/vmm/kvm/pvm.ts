/**
 * What a PVM host makes necessary. PVM ("pagetable virtual machine") runs guests without hardware virtualization:
 * ring 3 natively, kernel mode through KVM's instruction emulator, which lacks some instructions and is slow.
 *
 * Three things follow, on such hosts only: options that keep Linux off those instructions; two instructions that no
 * option avoids (int3 in its self-test and text patching, fwait) finished here; and timer deadlines kept at least
 * {@link MIN_DEADLINE_MS} away, because a guest that takes longer over a tick than the next is away never gets on.
 */
import { type KvmMachine, vcpuIoctl } from '../../native/kvm.js';
import { Ioctl, Msr } from './abi.js';
import { getEvents, getMsrs, getRegs, setEvents, setMsrs, setRegs } from './vcpu-state.js';

const MIN_DEADLINE_MS = 40;

/** Options a Linux guest needs on PVM, by what they are for; one is left out where the user gave it himself. */
const CMDLINE = [
  // XSAVE and what is built on it fail in the emulator, and CPUID cannot hide them all from the guest.
  'noxsave',
  'clearcpuid=110,111,erms,fsrm,smap,smep,umip,cx16,popcnt,xsave,rdrand,rdseed',
  'mitigations=off',
  // Kernel text stays where the emulator has seen it, and is patched without remapping.
  'rodata=off',
  'norandmaps',
];

/** `cmdline` with the options that PVM needs and it does not have. */
export function pvmCmdline(cmdline: string): string {
  const given = new Set(cmdline.split(/\s+/).map((option) => option.split('=')[0]));
  const missing = CMDLINE.filter((option) => !given.has(option.split('=')[0]!));
  return [cmdline, ...missing].filter((part) => part !== '').join(' ');
}

/** Offsets in struct kvm_vcpu_events. */
const EVENT_EXCEPTION_INJECTED = 0;
const EVENT_EXCEPTION_NUMBER = 1;
const EVENT_EXCEPTION_HAS_ERROR_CODE = 2;
const EVENT_EXCEPTION_PENDING = 3;

const INT3 = 0xcc;
const FWAIT = 0x9b;
const BREAKPOINT = 3;

/**
 * Finishes the instruction on which the emulator gave up, if it is one of the two known; the vCPU's exit is being
 * answered. False: it is another.
 */
export function finishInstruction(machine: KvmMachine, vcpu: number, instruction: Uint8Array): boolean {
  const opcode = instruction[0];
  if (opcode !== INT3 && opcode !== FWAIT) return false;
  const regs = getRegs(machine, vcpu);
  setRegs(machine, vcpu, { ...regs, rip: regs.rip + 1n });
  if (opcode === INT3) {
    const events = getEvents(machine, vcpu);
    events[EVENT_EXCEPTION_INJECTED] = 1;
    events[EVENT_EXCEPTION_NUMBER] = BREAKPOINT;
    events[EVENT_EXCEPTION_HAS_ERROR_CODE] = 0;
    events[EVENT_EXCEPTION_PENDING] = 0;
    setEvents(machine, vcpu, events);
  }
  return true;
}

/** Writes the guest's TSC deadline, not sooner than {@link MIN_DEADLINE_MS} from now; 0 disarms the timer. */
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
