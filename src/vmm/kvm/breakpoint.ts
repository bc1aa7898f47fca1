/**
 * The breakpoint exception (#BP) of a vCPU on a PVM host, which KVM_GET_VCPU_EVENTS leaves out.
 *
 * KVM leaves it out because a vCPU whose instruction pointer is at int3 meets the instruction again (Linux,
 * arch/x86/kvm/x86.c, kvm_vcpu_ioctl_x86_get_vcpu_events). PVM queues the exception behind the instruction. Registers and
 * events are then those of a vCPU that has just returned from its handler, and a snapshot of them loses the exception.
 * KVM_SET_GUEST_DEBUG tells the two apart: it refuses to queue an exception beside one that is not delivered yet.
 *
 * Thread: the device thread. The vCPU is parked, or waits for the answer to an exit.
 */
import { SystemError } from '../../errors.js';
import { type KvmMachine, vcpuIoctl } from '../../native/kvm.js';
import { Ioctl } from './abi.js';

const BREAKPOINT = 3;

/** struct kvm_guest_debug: `control`, padding, eight debug registers. */
const GUEST_DEBUG_BYTES = 72;
const INJECT_BP = 0x0008_0000;

/** struct kvm_vcpu_events: `exception.nr`. */
const EXCEPTION_NUMBER = 1;

/** Queues the exception of int3. @throws SystemError EBUSY where the vCPU has an exception that is not delivered yet */
export function queueBreakpoint(machine: KvmMachine, vcpu: number): void {
  const debug = new Uint8Array(GUEST_DEBUG_BYTES);
  new DataView(debug.buffer).setUint32(0, INJECT_BP, true);
  vcpuIoctl(machine, vcpu, Ioctl.SET_GUEST_DEBUG, debug);
}

/**
 * Whether the vCPU has the exception of an int3 that is not delivered yet. Changes nothing.
 * @param events struct kvm_vcpu_events of this vCPU
 */
export function hasHiddenBreakpoint(machine: KvmMachine, vcpu: number, events: Uint8Array): boolean {
  if (events[EXCEPTION_NUMBER] !== BREAKPOINT) return false;
  try {
    queueBreakpoint(machine, vcpu);
  } catch (error) {
    if (error instanceof SystemError && error.errnoName === 'EBUSY') return true;
    throw error;
  }
  vcpuIoctl(machine, vcpu, Ioctl.SET_VCPU_EVENTS, events);
  return false;
}
