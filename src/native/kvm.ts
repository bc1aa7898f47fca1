/**
 * KVM as the addon gives it: a machine behind an integer handle, typed ioctls by number, and the device thread's
 * `wait`. src/vmm decides what to call and in which order.
 */
import { addon } from './addon.js';
import type { MemoryHandle } from './memory.js';

interface KvmFunctions {
  kvmIoctl(request: number, argument: number | Uint8Array): number;
  machineCreate(trappedMsr: number, readsLog: boolean, ...steps: (number | Uint8Array)[]): number;
  machinePrepare(trappedMsr: number, readsLog: boolean, ...steps: (number | Uint8Array)[]): void;
  machineXsaveSize(machine: number): number;
  machineIoctl(machine: number, request: number, argument: number | Uint8Array): number;
  machineSetSlot(machine: number, slot: number, gpa: number, memory: number, logDirty: boolean): void;
  machineTakeDirtyLog(machine: number, slot: number, bitmap: Uint8Array): void;
  machineReadDirtyLog(machine: number, slot: number, bitmap: Uint8Array): boolean;
  machineAddVcpu(machine: number): number;
  vcpuIoctl(machine: number, vcpu: number, request: number, argument: number | Uint8Array): number;
  machineAttach(machine: number, exitPage: Uint8Array): void;
  machineStart(machine: number): void;
  machineRequestPause(machine: number): void;
  machineResume(machine: number): void;
  machineSetPostedPort(machine: number, port: number): void;
  machineAddNotifier(machine: number, gpa: number, queue: number, token: number): void;
  machineWatchFd(machine: number, fd: number, token: number, events: number): void;
  machineUnwatchFd(machine: number, fd: number): void;
  machineCreateIrq(machine: number, gsi: number): number;
  machineRaiseIrq(machine: number, irq: number): void;
  machineHoldExit(machine: number): number;
  machineReleaseExit(machine: number, vcpu: number): void;
  machineKill(machine: number): void;
  machineClose(machine: number): void;
  machineWait(machine: number, timeoutMs: number): number;
}

const native = (): KvmFunctions => addon();

/** Names a machine in every Worker of this process. */
export type KvmMachine = number;

/** A system ioctl on /dev/kvm. */
export const kvmIoctl = (request: number, argument: number | Uint8Array): number =>
  native().kvmIoctl(request, argument);

/** How a VM is made. */
export interface VmRecipe {
  /** The guest's writes of this MSR are exits; null: KVM handles all MSRs. */
  readonly trappedMsr: number | null;
  /** Where KVM can do that, {@link readDirtyLog} works (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2). */
  readonly readsLog: boolean;
  /** Ioctls on the VM before it has vCPUs, in order: request and argument. */
  readonly steps: readonly (readonly [request: number, argument: number | Uint8Array])[];
}

const PLAIN_VM: VmRecipe = { trappedMsr: null, readsLog: true, steps: [] };

/** Takes the VM that {@link prepareMachine} made, if it has the same recipe. Errors: SystemError. */
export const createMachine = ({ trappedMsr, readsLog, steps }: VmRecipe = PLAIN_VM): KvmMachine =>
  native().machineCreate(trappedMsr ?? -1, readsLog, ...steps.flat());

/** Makes a VM on a native thread, for the next {@link createMachine}. If that fails, it is made again there. */
export const prepareMachine = ({ trappedMsr, readsLog, steps }: VmRecipe): void =>
  native().machinePrepare(trappedMsr ?? -1, readsLog, ...steps.flat());

/** Size of the argument of KVM_GET_XSAVE2 and KVM_SET_XSAVE. */
export const xsaveSizeBytes = (machine: KvmMachine): number => native().machineXsaveSize(machine);

/** An ioctl on the VM. Its argument is an integer, or bytes that the kernel reads or fills. */
export const machineIoctl = (machine: KvmMachine, request: number, argument: number | Uint8Array): number =>
  native().machineIoctl(machine, request, argument);

/** Puts a memory into a slot, or changes whether the slot's writes are logged. */
export const setMemorySlot = (
  machine: KvmMachine,
  slot: number,
  at: { gpa: number; memory: MemoryHandle; logDirty: boolean },
): void => native().machineSetSlot(machine, slot, at.gpa, at.memory, at.logDirty);

/** Fetches and clears a slot's dirty log: one bit a page. `bitmap` is a whole number of 8-byte words. */
export const takeDirtyLog = (machine: KvmMachine, slot: number, bitmap: Uint8Array): void =>
  native().machineTakeDirtyLog(machine, slot, bitmap);

/** Fetches a slot's dirty log and leaves it as it is. False: this KVM cannot, and `bitmap` is as it was. */
export const readDirtyLog = (machine: KvmMachine, slot: number, bitmap: Uint8Array): boolean =>
  native().machineReadDirtyLog(machine, slot, bitmap);

/** Adds a vCPU and returns its index, which is its APIC ID too. */
export const addVcpu = (machine: KvmMachine): number => native().machineAddVcpu(machine);

/** An ioctl on a vCPU that is parked or waits for the answer to an exit. */
export const vcpuIoctl = (
  machine: KvmMachine,
  vcpu: number,
  request: number,
  argument: number | Uint8Array,
): number => native().vcpuIoctl(machine, vcpu, request, argument);

/** Makes the calling thread the machine's device thread. */
export const attachDeviceThread = (machine: KvmMachine, exitPage: Uint8Array): void =>
  native().machineAttach(machine, exitPage);

/** Starts the vCPU threads, parked. */
export const startVcpus = (machine: KvmMachine): void => native().machineStart(machine);

/** Asks every vCPU to park. {@link wait} reports when all have. */
export const requestPause = (machine: KvmMachine): void => native().machineRequestPause(machine);

export const resumeVcpus = (machine: KvmMachine): void => native().machineResume(machine);

/**
 * Gathers bytes that the guest writes to a port, without an exit for each ({@link WaitEvent.posted}); null: no port.
 * Only for a port, and a time, at which a write does nothing but send. The bytes come before any later exit.
 */
export const setPostedPort = (machine: KvmMachine, port: number | null): void =>
  native().machineSetPostedPort(machine, port ?? -1);

/**
 * Makes the guest's 4-byte writes of `queue` to `gpa` events of {@link wait} instead of exits (KVM_IOEVENTFD). The event
 * has `token`; one event may stand for many writes. Device thread.
 */
export const addNotifier = (
  machine: KvmMachine,
  at: { readonly gpa: number; readonly queue: number; readonly token: number },
): void => native().machineAddNotifier(machine, at.gpa, at.queue, at.token);

/**
 * Makes readiness of `fd` an event of {@link wait} with `token`, for as long as it is ready (level-triggered). A second
 * call changes token and events. The caller owns `fd`, and unwatches it before it closes it. Device thread.
 */
export const watchFd = (
  machine: KvmMachine,
  fd: number,
  token: number,
  events: { readonly read: boolean; readonly write: boolean },
): void => native().machineWatchFd(machine, fd, token, (events.read ? 1 : 0) | (events.write ? 2 : 0));

/** No event of `fd` comes after this. Device thread. */
export const unwatchFd = (machine: KvmMachine, fd: number): void => native().machineUnwatchFd(machine, fd);

/** An interrupt of a machine that is raised without a system call on the VM. */
export type Irq = number;

/** An edge-triggered interrupt on the line `gsi` (KVM_IRQFD). */
export const createIrq = (machine: KvmMachine, gsi: number): Irq => native().machineCreateIrq(machine, gsi);

/** Pulses the line. KVM delivers the pulse a little later, also while the vCPUs are parked. */
export const raiseIrq = (machine: KvmMachine, irq: Irq): void => native().machineRaiseIrq(machine, irq);

/** Keeps the vCPU of the current exit waiting for its answer, and returns its index. The exit must be a write. */
export const holdExit = (machine: KvmMachine): number => native().machineHoldExit(machine);

/** Answers an exit that was held. */
export const releaseExit = (machine: KvmMachine, vcpu: number): void =>
  native().machineReleaseExit(machine, vcpu);

/** Makes {@link wait} return {@link WaitEvent.dead}. Any thread. */
export const killMachine = (machine: KvmMachine): void => native().machineKill(machine);

/** Ends the vCPU threads and drops the handle. Any thread but a vCPU's. */
export const closeMachine = (machine: KvmMachine): void => native().machineClose(machine);

/** Answers the last exit and blocks for the next event, for at most an hour. `timeoutMs` −1: no limit. Device thread. */
export const wait = (machine: KvmMachine, timeoutMs: number): number =>
  native().machineWait(machine, timeoutMs);

/** What {@link wait} returns (addon/machine.h, WaitEvent). */
export const WaitEvent = { loop: 0, exit: 1, parked: 2, dead: 3, timeout: 4, posted: 5, ready: 6 } as const;

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
  /** Of {@link WaitEvent.ready}: the token of the notifier or descriptor. */
  token: 11,
} as const;
export const EXIT_DATA_OFFSET = 64;
export const EXIT_PAGE_BYTES = EXIT_DATA_OFFSET + 4096;
/** `reason` of an exit that is a failed KVM_RUN; `dataLow` is its errno. */
export const REASON_RUN_FAILED = 0xffffffff;
