/**
 * KVM as the addon gives it: a machine behind an integer handle, typed ioctls by number, and the device thread's
 * `wait`. What is asked of it, in what order, is src/vmm's.
 */
import { addon } from './addon.js';
import type { MemoryHandle } from './memory.js';

interface KvmFunctions {
  kvmIoctl(request: number, argument: number | Uint8Array): number;
  machineCreate(): number;
  machineXsaveSize(machine: number): number;
  machineIoctl(machine: number, request: number, argument: number | Uint8Array): number;
  machineEnableCap(machine: number, capability: number, argument: number): void;
  machineTrapMsrWrites(machine: number, msr: number): void;
  machineSetSlot(machine: number, slot: number, gpa: number, memory: number, logDirty: boolean): void;
  machineReadDirtyLog(machine: number, slot: number, bitmap: Uint8Array): void;
  machineAddVcpu(machine: number): number;
  vcpuIoctl(machine: number, vcpu: number, request: number, argument: number | Uint8Array): number;
  machineAttach(machine: number, exitPage: Uint8Array): void;
  machineStart(machine: number): void;
  machineRequestPause(machine: number): void;
  machineResume(machine: number): void;
  machineSetPostedPort(machine: number, port: number): void;
  machineKill(machine: number): void;
  machineClose(machine: number): void;
  machineWait(machine: number, timeoutMs: number): number;
}

const native = addon as unknown as KvmFunctions;

/** Names a machine in every Worker of this process. */
export type KvmMachine = number;

/** A system ioctl on /dev/kvm. */
export const kvmIoctl = native.kvmIoctl;
export const createMachine = (): KvmMachine => native.machineCreate();
/** Bytes of the argument of KVM_GET_XSAVE2 and KVM_SET_XSAVE. */
export const xsaveSizeBytes = (machine: KvmMachine): number => native.machineXsaveSize(machine);
/** An ioctl on the VM; its argument is an integer, or bytes that the kernel reads or fills. */
export const machineIoctl = native.machineIoctl;
export const enableCapability = native.machineEnableCap;
/** Makes the guest's writes of one MSR exits; every other MSR is KVM's. */
export const trapMsrWrites = native.machineTrapMsrWrites;

/** Puts a memory into a slot, or changes whether the slot's writes are logged. */
export const setMemorySlot = (
  machine: KvmMachine,
  slot: number,
  at: { gpa: number; memory: MemoryHandle; logDirty: boolean },
): void => native.machineSetSlot(machine, slot, at.gpa, at.memory, at.logDirty);

/** Fetches and clears a slot's dirty log: one bit a page; `bitmap` in whole 8-byte words. */
export const readDirtyLog = native.machineReadDirtyLog;
/** Adds a vCPU and says its index (and APIC id). */
export const addVcpu = (machine: KvmMachine): number => native.machineAddVcpu(machine);
/** An ioctl on a vCPU that is parked, or whose exit is being answered. */
export const vcpuIoctl = native.vcpuIoctl;
/** Makes the calling thread the machine's device thread. */
export const attachDeviceThread = native.machineAttach;
/** Starts the vCPU threads, parked. */
export const startVcpus = native.machineStart;
/** Has every vCPU parked; {@link wait} says when. */
export const requestPause = native.machineRequestPause;
export const resumeVcpus = native.machineResume;
/**
 * Has bytes written to a port gathered, without an exit for each ({@link WaitEvent.posted}); null: no port. Only for a
 * port and a time when a write does nothing but send. They come before any later exit.
 */
export const setPostedPort = (machine: KvmMachine, port: number | null): void =>
  native.machineSetPostedPort(machine, port ?? -1);
/** Makes {@link wait} return {@link WaitEvent.dead}. Any thread. */
export const killMachine = native.machineKill;
/** Ends the vCPU threads and forgets the handle. Any thread but a vCPU's. */
export const closeMachine = native.machineClose;
/** Answers the last exit and blocks for the next event; `timeoutMs` −1: for ever. Device thread. */
export const wait = native.machineWait;

/** What {@link wait} returns (addon/machine.h, WaitEvent). */
export const WaitEvent = { loop: 0, exit: 1, parked: 2, dead: 3, timeout: 4, posted: 5 } as const;

/** 32-bit words of the exit page (addon/machine.h, ExitWord). */
export const ExitWord = {
  vcpu: 0,
  reason: 1,
  isWrite: 2,
  sizeBytes: 3,
  count: 4,
  addressLow: 5,
  addressHigh: 6,
  dataLow: 7,
  dataHigh: 8,
  error: 9,
  suberror: 10,
} as const;
export const EXIT_DATA_OFFSET = 64;
export const EXIT_PAGE_BYTES = EXIT_DATA_OFFSET + 4096;
/** `reason` of an exit that is a failed KVM_RUN; `dataLow` is its errno. */
export const REASON_RUN_FAILED = 0xffffffff;
