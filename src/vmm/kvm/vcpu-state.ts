/**
 * The state of one vCPU: how it is read from KVM, and how it is put back.
 *
 * Invariants: the vCPU is parked; the orders below bind, because some ioctls overwrite what others set: LAPIC before
 * the MSRs, since a write of TSC_DEADLINE is dropped while the timer's mode is not yet the saved one, and that MSR
 * after TSC, against which it counts; VCPU_EVENTS last, since other calls clear pending events (Linux,
 * Documentation/virt/kvm/api.rst).
 */
import { LivesnapError, SystemError } from '../../errors.js';
import { type KvmMachine, kvmIoctl, vcpuIoctl, xsaveSizeBytes } from '../../native/kvm.js';
import { Capability, Ioctl, Msr } from './abi.js';
import {
  CPUID_ENTRY,
  type CpuidEntry,
  decodeCpuid,
  emptyCpuid,
  encodeCpuid,
  MAX_CPUID_ENTRIES,
} from './cpuid.js';
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
import { checkStruct, readStruct, writeStruct } from './struct.js';

export interface MsrValue {
  readonly index: number;
  readonly value: bigint;
}

/** Structures that are kept as KVM gives them: name, bytes, and the ioctls that read and write them. */
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
  /** TSC_DEADLINE is last; it is never 0: what KVM shows as 0 may be a timer that has just run out, and becomes the TSC. */
  readonly msrs: readonly MsrValue[];
}

/** How far two TSC rates may differ and still be the same to a guest, as in KVM's own default tolerance. */
const TSC_TOLERANCE_PPM = 250;
/** More than any KVM lists (KVM_GET_MSR_INDEX_LIST). */
export const MAX_MSRS = 1024;
/** GET_MSRS and SET_MSRS take fewer than 256 at a time (Linux, arch/x86/kvm/x86.c, MAX_IO_MSRS). */
const MSRS_PER_CALL = 255;
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

export function getMpState(machine: KvmMachine, vcpu: number): number {
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

/** Pending exceptions and interrupts, as struct kvm_vcpu_events. */
export const getEvents = (machine: KvmMachine, vcpu: number): Uint8Array => getRaw(machine, vcpu, 'events');
export const setEvents = (machine: KvmMachine, vcpu: number, events: Uint8Array): void => {
  vcpuIoctl(machine, vcpu, Ioctl.SET_VCPU_EVENTS, events);
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

/** Reads MSRs, in order; those that KVM lists but this processor does not have are left out. */
export function getMsrs(machine: KvmMachine, vcpu: number, indices: readonly number[]): MsrValue[] {
  const found: MsrValue[] = [];
  let next = 0;
  while (next < indices.length) {
    const batch = indices.slice(next, next + MSRS_PER_CALL);
    const bytes = encodeMsrs(batch.map((index) => ({ index, value: 0n })));
    const count = vcpuIoctl(machine, vcpu, Ioctl.GET_MSRS, bytes);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < count; i++) {
      found.push({
        index: batch[i]!,
        value: view.getBigUint64(MSR_HEADER_BYTES + i * MSR_ENTRY_BYTES + 8, true),
      });
    }
    // KVM stops at the first it cannot read.
    next += count < batch.length ? count + 1 : count;
  }
  return found;
}

/** Writes MSRs, in order. @throws LivesnapError HOST_LACKS when KVM does not take every one (a short count). */
export function setMsrs(machine: KvmMachine, vcpu: number, msrs: readonly MsrValue[]): void {
  for (let next = 0; next < msrs.length; next += MSRS_PER_CALL) {
    const batch = msrs.slice(next, next + MSRS_PER_CALL);
    const count = vcpuIoctl(machine, vcpu, Ioctl.SET_MSRS, encodeMsrs(batch));
    if (count < batch.length) {
      throw new LivesnapError(
        'HOST_LACKS',
        `this host's KVM does not take the saved value of MSR 0x${batch[count]!.index.toString(16)}`,
        { hint: 'Restore on a host with the processor and kernel of the one it was saved on.' },
      );
    }
  }
}

let msrList: readonly number[] | undefined;

/** What a snapshot must hold (KVM_GET_MSR_INDEX_LIST), TSC_DEADLINE last. */
function msrsToSave(): readonly number[] {
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

export function saveVcpu(machine: KvmMachine, vcpu: number): VcpuState {
  const mpState = getMpState(machine, vcpu);
  const regs = getRegs(machine, vcpu);
  const sregs = getSregs(machine, vcpu);
  const xsave = new Uint8Array(xsaveSizeBytes(machine));
  vcpuIoctl(machine, vcpu, getXsaveRequest(machine), xsave);
  const xcrs = getRaw(machine, vcpu, 'xcrs');
  const debugRegs = getRaw(machine, vcpu, 'debugRegs');
  const lapic = getRaw(machine, vcpu, 'lapic');
  const tscKhz = vcpuIoctl(machine, vcpu, Ioctl.GET_TSC_KHZ, 0);
  const cpuid = emptyCpuid();
  vcpuIoctl(machine, vcpu, Ioctl.GET_CPUID2, cpuid);
  const msrs = getMsrs(machine, vcpu, msrsToSave());
  const tsc = msrs.find(({ index }) => index === Msr.IA32_TSC)?.value ?? 0n;
  return {
    mpState,
    regs,
    sregs,
    xsave,
    xcrs,
    debugRegs,
    lapic,
    tscKhz,
    cpuid: decodeCpuid(cpuid),
    msrs: msrs.map((msr) =>
      msr.index === Msr.IA32_TSC_DEADLINE && msr.value === 0n ? { index: msr.index, value: tsc } : msr,
    ),
    events: getRaw(machine, vcpu, 'events'),
  };
}

/**
 * Whether saved extended control registers are to be set: a processor without XSAVE has none, and its KVM refuses to
 * set even none of them.
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

/** Puts a saved vCPU into a fresh one. @throws LivesnapError HOST_LACKS */
export function restoreVcpu(machine: KvmMachine, vcpu: number, state: VcpuState, tscControl: boolean): void {
  setTscRate(machine, vcpu, state.tscKhz, tscControl);
  setCpuid(machine, vcpu, state.cpuid);
  const mpState = new Uint8Array(4);
  new DataView(mpState.buffer).setUint32(0, state.mpState, true);
  vcpuIoctl(machine, vcpu, Ioctl.SET_MP_STATE, mpState);
  setRegs(machine, vcpu, state.regs);
  setSregs(machine, vcpu, state.sregs);
  const xsave = new Uint8Array(xsaveSizeBytes(machine));
  if (state.xsave.length > xsave.length) {
    throw new LivesnapError('HOST_LACKS', "the snapshot's XSAVE area is larger than this host's", {
      hint: 'Restore on a host whose processor has the features of the one it was saved on.',
    });
  }
  xsave.set(state.xsave);
  vcpuIoctl(machine, vcpu, Ioctl.SET_XSAVE, xsave);
  if (mustSetXcrs(state.xcrs, getRaw(machine, vcpu, 'xcrs'))) setRaw(machine, vcpu, 'xcrs', state);
  setRaw(machine, vcpu, 'debugRegs', state);
  setRaw(machine, vcpu, 'lapic', state);
  const isDeadline = ({ index }: MsrValue): boolean => index === Msr.IA32_TSC_DEADLINE;
  setMsrs(
    machine,
    vcpu,
    state.msrs.filter((msr) => !isDeadline(msr)),
  );
  // Where KVM cannot set the TSC (PVM), it went on while the machine did not exist: move the deadline with it.
  const savedTsc = state.msrs.find(({ index }) => index === Msr.IA32_TSC)?.value ?? 0n;
  const tsc = getMsrs(machine, vcpu, [Msr.IA32_TSC])[0]?.value ?? savedTsc;
  setMsrs(
    machine,
    vcpu,
    state.msrs
      .filter(isDeadline)
      .map(({ index, value }) => ({ index, value: BigInt.asUintN(64, value + (tsc - savedTsc)) })),
  );
  setRaw(machine, vcpu, 'events', state);
  try {
    vcpuIoctl(machine, vcpu, Ioctl.KVMCLOCK_CTRL, 0);
  } catch (error) {
    // EINVAL: a guest without kvmclock, which has no watchdog to be told that it stood still.
    if (!(error instanceof SystemError && error.errnoName === 'EINVAL')) throw error;
  }
}

function setTscRate(machine: KvmMachine, vcpu: number, savedKhz: number, tscControl: boolean): void {
  const rate = (): number => vcpuIoctl(machine, vcpu, Ioctl.GET_TSC_KHZ, 0);
  const same = (khz: number): boolean => Math.abs(khz - savedKhz) <= (savedKhz * TSC_TOLERANCE_PPM) / 1e6;
  if (same(rate())) return;
  if (tscControl) vcpuIoctl(machine, vcpu, Ioctl.SET_TSC_KHZ, savedKhz);
  // Not the ioctl's return but what it did: without TSC_CONTROL it says 0 and scales nothing.
  if (tscControl && same(rate())) return;
  throw new LivesnapError(
    'HOST_LACKS',
    `the snapshot's TSC runs at ${savedKhz} kHz, this host's at ${rate()} kHz, and its KVM cannot scale it`,
    { hint: 'Restore on a host with the same TSC rate, or one whose KVM has TSC scaling.' },
  );
}

/** Checks that plain data (from a store) is the state of a vCPU. @throws LivesnapError BAD_STATE */
export function checkVcpuState(value: unknown): VcpuState {
  const bad = (what: string): never => {
    throw new LivesnapError('BAD_STATE', `the saved state has no valid ${what} for a vCPU`);
  };
  const state = (typeof value === 'object' && value !== null ? value : bad('record')) as Record<
    string,
    unknown
  >;
  const bytes = (name: string, min: number, max = min): Uint8Array => {
    const field = state[name];
    return field instanceof Uint8Array && field.length >= min && field.length <= max ? field : bad(name);
  };
  const u32 = (name: string): number =>
    Number.isInteger(state[name]) && (state[name] as number) >= 0 && (state[name] as number) < 2 ** 32
      ? (state[name] as number)
      : bad(name);
  const list = (name: string, max: number): unknown[] => {
    const field = state[name];
    return Array.isArray(field) && field.length <= max ? field : bad(name);
  };
  const part = (of: unknown, name: string): unknown => (of as Record<string, unknown> | undefined)?.[name];
  const { sregs } = state;
  return {
    mpState: u32('mpState'),
    tscKhz: u32('tscKhz'),
    regs: checkStruct(REGS, state.regs, 'regs'),
    sregs: {
      segments: Object.fromEntries(
        SEGMENT_NAMES.map((name) => [name, checkStruct(SEGMENT, part(part(sregs, 'segments'), name), name)]),
      ) as Sregs['segments'],
      tables: Object.fromEntries(
        TABLE_NAMES.map((name) => [
          name,
          checkStruct(DESCRIPTOR_TABLE, part(part(sregs, 'tables'), name), name),
        ]),
      ) as Sregs['tables'],
      control: checkStruct(CONTROL, part(sregs, 'control'), 'control'),
    },
    xsave: bytes('xsave', 576, 1 << 20),
    xcrs: bytes('xcrs', RAW.xcrs.bytes),
    debugRegs: bytes('debugRegs', RAW.debugRegs.bytes),
    lapic: bytes('lapic', RAW.lapic.bytes),
    events: bytes('events', RAW.events.bytes),
    cpuid: list('cpuid', MAX_CPUID_ENTRIES).map((entry) => checkStruct(CPUID_ENTRY, entry, 'cpuid')),
    msrs: list('msrs', MAX_MSRS).map((msr) => checkStruct({ index: 4, value: 8 }, msr, 'msr')),
  };
}
