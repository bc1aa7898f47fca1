/**
 * Saves and restores the state of a machine's vCPUs (Linux, Documentation/virt/kvm/api.rst).
 *
 * Thread: the device thread.
 *
 * Invariants:
 * - All vCPUs are parked.
 * - The order of the ioctls below is fixed, because some overwrite what others set.
 * - LAPIC comes before the MSRs: KVM drops a write of TSC_DEADLINE until the timer has its saved mode.
 * - A vCPU of a PVM host that has the exception of an int3 yet to come is saved at the int3 (breakpoint.ts).
 * - MP_STATE is read first: KVM performs a pending INIT or SIPI then, which changes the registers.
 * - The TSCs of all vCPUs are written one directly after another (tsc.ts).
 * - TSC_DEADLINE comes after TSC, which it is compared with.
 * - VCPU_EVENTS comes last: other ioctls clear pending events.
 */
import { LivesnapError, SystemError } from '../../errors.js';
import { type KvmMachine, kvmIoctl, vcpuIoctl, xsaveSizeBytes } from '../../native/kvm.js';
import { bytes, type Check, integer, list, object } from '../../schema.js';
import { Capability, Ioctl, Msr } from './abi.js';
import { hasHiddenBreakpoint } from './breakpoint.js';
import {
  CPUID_ENTRY,
  type CpuidEntry,
  decodeCpuid,
  emptyCpuid,
  encodeCpuid,
  MAX_CPUID_ENTRIES,
} from './cpuid.js';
import { restoredDeadline, tscCycles } from './guest-time.js';
import type { KvmKind } from './host.js';
import {
  CONTROL,
  DESCRIPTOR_TABLE,
  decodeSregs,
  encodeSregs,
  REGS,
  REGS_BYTES,
  type Regs,
  SEGMENT,
  SEGMENT_NAMES,
  SREGS_BYTES,
  type Sregs,
  TABLE_NAMES,
} from './registers.js';
import { readStruct, structCheck, writeStruct } from './struct.js';
import { restoreTscs } from './tsc.js';

export interface MsrValue {
  readonly index: number;
  readonly value: bigint;
}

/** Structures that are saved as raw bytes: name, size, and the ioctls that read and write them. */
const RAW = {
  xcrs: { bytes: 392, get: Ioctl.GET_XCRS, set: Ioctl.SET_XCRS },
  debugRegs: { bytes: 128, get: Ioctl.GET_DEBUGREGS, set: Ioctl.SET_DEBUGREGS },
  lapic: { bytes: 1024, get: Ioctl.GET_LAPIC, set: Ioctl.SET_LAPIC },
  events: { bytes: 64, get: Ioctl.GET_VCPU_EVENTS, set: Ioctl.SET_VCPU_EVENTS },
} as const;
type RawName = keyof typeof RAW;

export interface VcpuState extends Record<RawName, Uint8Array> {
  readonly mpState: number;
  readonly regs: Regs;
  readonly sregs: Sregs;
  readonly xsave: Uint8Array;
  readonly tscKhz: number;
  readonly cpuid: readonly CpuidEntry[];
  /**
   * TSC_DEADLINE is last, and never 0: a 0 may be a timer that has just expired, so it is saved as the current TSC,
   * which fires at once.
   */
  readonly msrs: readonly MsrValue[];
}

/** TSC rates that differ by less count as equal, as in KVM's own default tolerance. */
const TSC_TOLERANCE_PPM = 250;

export const isSameTscRate = (hereKhz: number, savedKhz: number): boolean =>
  Math.abs(hereKhz - savedKhz) <= (savedKhz * TSC_TOLERANCE_PPM) / 1e6;

/** More than any KVM lists (KVM_GET_MSR_INDEX_LIST). */
export const MAX_MSRS = 1024;
/** GET_MSRS and SET_MSRS accept fewer than 256 at a time (Linux, arch/x86/kvm/x86.c, MAX_IO_MSRS). */
const MSRS_PER_CALL = 255;
/** The legacy area and the header (Intel SDM vol. 1, 13.4), and more than any processor has. */
const MIN_XSAVE_BYTES = 576;
const MAX_XSAVE_BYTES = 1 << 20;
const MSR_HEADER_BYTES = 8;
const MSR_ENTRY_BYTES = 16;

export function getRegs(machine: KvmMachine, vcpu: number): Regs {
  const bytes = new Uint8Array(REGS_BYTES);
  vcpuIoctl(machine, vcpu, Ioctl.GET_REGS, bytes);
  return readStruct(REGS, bytes);
}

export function setRegs(machine: KvmMachine, vcpu: number, regs: Regs): void {
  const bytes = new Uint8Array(REGS_BYTES);
  writeStruct(REGS, regs, bytes);
  vcpuIoctl(machine, vcpu, Ioctl.SET_REGS, bytes);
}

export function getSregs(machine: KvmMachine, vcpu: number): Sregs {
  const bytes = new Uint8Array(SREGS_BYTES);
  vcpuIoctl(machine, vcpu, Ioctl.GET_SREGS, bytes);
  return decodeSregs(bytes);
}

export function setSregs(machine: KvmMachine, vcpu: number, sregs: Sregs): void {
  vcpuIoctl(machine, vcpu, Ioctl.SET_SREGS, encodeSregs(sregs));
}

export function setCpuid(machine: KvmMachine, vcpu: number, entries: readonly CpuidEntry[]): void {
  vcpuIoctl(machine, vcpu, Ioctl.SET_CPUID2, encodeCpuid(entries));
}

export function getCpuid(machine: KvmMachine, vcpu: number): CpuidEntry[] {
  const bytes = emptyCpuid();
  vcpuIoctl(machine, vcpu, Ioctl.GET_CPUID2, bytes);
  return decodeCpuid(bytes);
}

function getMpState(machine: KvmMachine, vcpu: number): number {
  const bytes = new Uint8Array(4);
  vcpuIoctl(machine, vcpu, Ioctl.GET_MP_STATE, bytes);
  return new DataView(bytes.buffer).getUint32(0, true);
}

function getRaw(machine: KvmMachine, vcpu: number, name: RawName): Uint8Array {
  const bytes = new Uint8Array(RAW[name].bytes);
  vcpuIoctl(machine, vcpu, RAW[name].get, bytes);
  return bytes;
}

const setRaw = (machine: KvmMachine, vcpu: number, name: RawName, state: VcpuState): void => {
  vcpuIoctl(machine, vcpu, RAW[name].set, state[name]);
};

function encodeMsrs(msrs: readonly MsrValue[]): Uint8Array {
  const bytes = new Uint8Array(MSR_HEADER_BYTES + msrs.length * MSR_ENTRY_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, msrs.length, true);
  msrs.forEach(({ index, value }, i) => {
    view.setUint32(MSR_HEADER_BYTES + i * MSR_ENTRY_BYTES, index, true);
    view.setBigUint64(MSR_HEADER_BYTES + i * MSR_ENTRY_BYTES + 8, value, true);
  });
  return bytes;
}

/** Reads MSRs, in order. MSRs that this processor lacks are left out, though KVM lists them. */
export const getMsrs = (machine: KvmMachine, vcpu: number, indices: readonly number[]): MsrValue[] =>
  readMsrs((bytes) => vcpuIoctl(machine, vcpu, Ioctl.GET_MSRS, bytes), indices);

/** Reads the bits of feature MSRs that this host has (KVM_CAP_GET_MSR_FEATURES). Those that KVM does not know are left out. */
export const getFeatureMsrs = (indices: readonly number[]): MsrValue[] =>
  readMsrs((bytes) => kvmIoctl(Ioctl.GET_MSRS, bytes), indices);

function readMsrs(read: (bytes: Uint8Array) => number, indices: readonly number[]): MsrValue[] {
  const found: MsrValue[] = [];
  let next = 0;
  while (next < indices.length) {
    const batch = indices.slice(next, next + MSRS_PER_CALL);
    const bytes = encodeMsrs(batch.map((index) => ({ index, value: 0n })));
    const count = read(bytes);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < count; i++) {
      found.push({
        index: batch[i]!,
        value: view.getBigUint64(MSR_HEADER_BYTES + i * MSR_ENTRY_BYTES + 8, true),
      });
    }
    // KVM stops at the first MSR that it cannot read.
    next += count < batch.length ? count + 1 : count;
  }
  return found;
}

/** Writes MSRs, in order. @throws LivesnapError HOST_LACKS when KVM refuses one (a short count) */
export function setMsrs(machine: KvmMachine, vcpu: number, msrs: readonly MsrValue[]): void {
  for (let next = 0; next < msrs.length; next += MSRS_PER_CALL) {
    const batch = msrs.slice(next, next + MSRS_PER_CALL);
    const count = vcpuIoctl(machine, vcpu, Ioctl.SET_MSRS, encodeMsrs(batch));
    if (count < batch.length) {
      throw new LivesnapError(
        'HOST_LACKS',
        `this host's KVM refused the saved value of MSR 0x${batch[count]!.index.toString(16)}`,
        { hint: 'Restore on a host with the same processor model and kernel as the one that saved it.' },
      );
    }
  }
}

let msrList: readonly number[] | undefined;

/** The MSRs that KVM can save and set here (KVM_GET_MSR_INDEX_LIST), TSC_DEADLINE last. A snapshot holds them. */
export function listedMsrs(): readonly number[] {
  if (msrList) return msrList;
  const bytes = new Uint8Array(4 + 4 * MAX_MSRS);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAX_MSRS, true);
  kvmIoctl(Ioctl.GET_MSR_INDEX_LIST, bytes);
  const all = Array.from({ length: view.getUint32(0, true) }, (_, i) => view.getUint32(4 + 4 * i, true));
  msrList = [
    ...all.filter((index) => index !== Msr.IA32_TSC_DEADLINE),
    ...all.filter((index) => index === Msr.IA32_TSC_DEADLINE),
  ];
  return msrList;
}

const getXsaveRequest = (machine: KvmMachine): number =>
  xsaveSizeBytes(machine) > 4096 || kvmIoctl(Ioctl.CHECK_EXTENSION, Capability.XSAVE2) > 0
    ? Ioctl.GET_XSAVE2
    : Ioctl.GET_XSAVE;

/** The state of every vCPU. */
export const saveVcpus = (machine: KvmMachine, kind: KvmKind, cpus: number): VcpuState[] =>
  Array.from({ length: cpus }, (_, vcpu) => saveVcpu(machine, kind, vcpu));

function saveVcpu(machine: KvmMachine, kind: KvmKind, vcpu: number): VcpuState {
  const mpState = getMpState(machine, vcpu);
  const regs = getRegs(machine, vcpu);
  const sregs = getSregs(machine, vcpu);
  const xsave = new Uint8Array(xsaveSizeBytes(machine));
  vcpuIoctl(machine, vcpu, getXsaveRequest(machine), xsave);
  const xcrs = getRaw(machine, vcpu, 'xcrs');
  const debugRegs = getRaw(machine, vcpu, 'debugRegs');
  const lapic = getRaw(machine, vcpu, 'lapic');
  const tscKhz = vcpuIoctl(machine, vcpu, Ioctl.GET_TSC_KHZ, 0);
  const cpuid = getCpuid(machine, vcpu);
  const msrs = getMsrs(machine, vcpu, listedMsrs());
  const tsc = msrs.find(({ index }) => index === Msr.IA32_TSC)?.value ?? 0n;
  const events = getRaw(machine, vcpu, 'events');
  const atInt3 = kind === 'pvm' && hasHiddenBreakpoint(machine, vcpu, events);
  return {
    mpState,
    regs: atInt3 ? { ...regs, rip: regs.rip - 1n } : regs,
    sregs,
    xsave,
    xcrs,
    debugRegs,
    lapic,
    tscKhz,
    cpuid,
    msrs: msrs.map((msr) =>
      msr.index === Msr.IA32_TSC_DEADLINE && msr.value === 0n ? { index: msr.index, value: tsc } : msr,
    ),
    events,
  };
}

/**
 * Whether the saved extended control registers must be set. A processor without XSAVE has none, and its KVM refuses the
 * ioctl even for an empty list.
 * @param saved struct kvm_xcrs of the snapshot
 * @param fresh struct kvm_xcrs of a new vCPU on this host
 * @throws LivesnapError HOST_LACKS when the snapshot has some and this host has none
 */
export function mustSetXcrs(saved: Uint8Array, fresh: Uint8Array): boolean {
  const count = (xcrs: Uint8Array): number => new DataView(xcrs.buffer, xcrs.byteOffset).getUint32(0, true);
  if (count(saved) === 0) return false;
  if (count(fresh) > 0) return true;
  throw new LivesnapError('HOST_LACKS', 'the snapshot needs XSAVE, which this host does not have', {
    hint: 'Restore on a host whose processor and KVM have XSAVE.',
  });
}

/**
 * Restores saved vCPUs into fresh ones.
 * @param addedNs how far the guest's time advances. The TSCs are written accordingly; where KVM ignores that (PVM), they
 * have counted on with the host's.
 * @throws LivesnapError HOST_LACKS
 */
export function restoreVcpus(
  machine: KvmMachine,
  states: readonly VcpuState[],
  { tscControl, addedNs }: { readonly tscControl: boolean; readonly addedNs: bigint },
): void {
  states.forEach((state, vcpu) => {
    restoreBeforeTsc(machine, vcpu, state, tscControl);
  });
  const added = states.map(({ tscKhz }) => tscCycles(addedNs, tscKhz));
  const tscs = states.map((state, vcpu) => BigInt.asUintN(64, savedTsc(state) + added[vcpu]!));
  const aheadTicks = restoreTscs(
    {
      read: (vcpu) => getMsrs(machine, vcpu, [Msr.IA32_TSC])[0]?.value ?? 0n,
      write: (vcpu, value) => setMsrs(machine, vcpu, [{ index: Msr.IA32_TSC, value }]),
    },
    tscs,
  );
  states.forEach((state, vcpu) => {
    restoreAfterTsc(machine, vcpu, state, {
      tsc: BigInt.asUintN(64, tscs[vcpu]! + aheadTicks[vcpu]!),
      addedCycles: added[vcpu]!,
    });
  });
}

const isTsc = ({ index }: MsrValue): boolean => index === Msr.IA32_TSC;
const isDeadline = ({ index }: MsrValue): boolean => index === Msr.IA32_TSC_DEADLINE;
const savedTsc = ({ msrs }: VcpuState): bigint => msrs.find(isTsc)?.value ?? 0n;

function restoreBeforeTsc(machine: KvmMachine, vcpu: number, state: VcpuState, tscControl: boolean): void {
  setTscRate(machine, vcpu, state.tscKhz, tscControl);
  setCpuid(machine, vcpu, state.cpuid);
  const mpState = new Uint8Array(4);
  new DataView(mpState.buffer).setUint32(0, state.mpState, true);
  vcpuIoctl(machine, vcpu, Ioctl.SET_MP_STATE, mpState);
  setRegs(machine, vcpu, state.regs);
  setSregs(machine, vcpu, state.sregs);
  const xsave = new Uint8Array(xsaveSizeBytes(machine));
  if (state.xsave.length > xsave.length) {
    throw new LivesnapError(
      'HOST_LACKS',
      `the snapshot's XSAVE area has ${state.xsave.length} bytes; this host's has ${xsave.length}`,
      {
        hint: 'Restore on a host whose processor has all features of the one that saved it.',
      },
    );
  }
  xsave.set(state.xsave);
  vcpuIoctl(machine, vcpu, Ioctl.SET_XSAVE, xsave);
  if (mustSetXcrs(state.xcrs, getRaw(machine, vcpu, 'xcrs'))) setRaw(machine, vcpu, 'xcrs', state);
  setRaw(machine, vcpu, 'debugRegs', state);
  setRaw(machine, vcpu, 'lapic', state);
  // A kernel that does not know an MSR has nothing to set it back to 0.
  const known = new Set(listedMsrs());
  setMsrs(
    machine,
    vcpu,
    state.msrs.filter((msr) => !isTsc(msr) && !isDeadline(msr) && (msr.value !== 0n || known.has(msr.index))),
  );
}

/**
 * @param tsc what the TSC was when it was written: the value written, or, where KVM cannot set it (PVM), what it counted
 * on to. Deadlines move with it.
 */
function restoreAfterTsc(
  machine: KvmMachine,
  vcpu: number,
  state: VcpuState,
  { tsc, addedCycles }: { readonly tsc: bigint; readonly addedCycles: bigint },
): void {
  const deadlines = state.msrs.filter(isDeadline).map(({ index, value }) => ({
    index,
    value: restoredDeadline({ deadline: value, tsc: savedTsc(state) }, tsc, addedCycles),
  }));
  setMsrs(machine, vcpu, deadlines);
  setRaw(machine, vcpu, 'events', state);
  try {
    vcpuIoctl(machine, vcpu, Ioctl.KVMCLOCK_CTRL, 0);
  } catch (error) {
    // EINVAL: the guest does not use kvmclock, so it has no watchdog that a pause could alarm.
    if (!(error instanceof SystemError && error.errnoName === 'EINVAL')) throw error;
  }
}

function setTscRate(machine: KvmMachine, vcpu: number, savedKhz: number, tscControl: boolean): void {
  const rate = (): number => vcpuIoctl(machine, vcpu, Ioctl.GET_TSC_KHZ, 0);
  const same = (khz: number): boolean => isSameTscRate(khz, savedKhz);
  if (same(rate())) return;
  if (tscControl) vcpuIoctl(machine, vcpu, Ioctl.SET_TSC_KHZ, savedKhz);
  // The rate is read back, because without TSC_CONTROL the ioctl returns 0 and changes nothing.
  if (tscControl && same(rate())) return;
  throw new LivesnapError(
    'HOST_LACKS',
    `the snapshot's TSC runs at ${savedKhz} kHz, this host's at ${rate()} kHz, and its KVM cannot scale it`,
    { hint: 'Restore on a host with the same TSC rate, or one whose KVM has TSC scaling.' },
  );
}

const recordOf = <K extends string, T>(names: readonly K[], check: Check<T>): Check<Record<K, T>> =>
  object(Object.fromEntries(names.map((name) => [name, check])), {
    others: 'ignore',
  }) as Check<unknown> as Check<Record<K, T>>;

/** The check of a vCPU's state in a snapshot. */
export const VCPU_STATE: Check<VcpuState> = object(
  {
    mpState: integer(0, 0xffff_ffff),
    tscKhz: integer(0, 0xffff_ffff),
    regs: structCheck(REGS),
    sregs: object(
      {
        segments: recordOf(SEGMENT_NAMES, structCheck(SEGMENT)),
        tables: recordOf(TABLE_NAMES, structCheck(DESCRIPTOR_TABLE)),
        control: structCheck(CONTROL),
      },
      { others: 'ignore' },
    ),
    xsave: bytes(MIN_XSAVE_BYTES, MAX_XSAVE_BYTES),
    xcrs: bytes(RAW.xcrs.bytes),
    debugRegs: bytes(RAW.debugRegs.bytes),
    lapic: bytes(RAW.lapic.bytes),
    events: bytes(RAW.events.bytes),
    cpuid: list(structCheck(CPUID_ENTRY), 0, MAX_CPUID_ENTRIES),
    msrs: list(structCheck({ index: 4, value: 8 }), 0, MAX_MSRS),
  },
  { others: 'ignore' },
);
