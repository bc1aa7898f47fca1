/** The state of the devices that KVM models for the whole machine: PIC, IOAPIC, PIT and the paravirtual clock. */
import { type KvmMachine, kvmIoctl, machineIoctl } from '../../native/kvm.js';
import { bytes, type Check, list, object, optional, satisfying, unsigned } from '../../schema.js';
import { Capability, CLOCK_REALTIME, Ioctl } from './abi.js';
import { type ElapsedTime, wallClockNs } from './guest-time.js';

export interface VmState {
  /** struct kvm_pit_state2. */
  readonly pit: Uint8Array;
  /** Nanoseconds of the guest's kvmclock. */
  readonly clockNs: bigint;
  /** The host's wall clock at that time, in nanoseconds since 1970. Earlier versions did not save it. */
  readonly realtimeNs?: bigint | undefined;
  /** struct kvm_irqchip of the master PIC, the slave PIC and the IOAPIC. */
  readonly irqchips: readonly Uint8Array[];
}

const PIT_BYTES = 112;
const CLOCK_BYTES = 48;
/** Offsets in struct kvm_clock_data. */
const Clock = { ns: 0, flags: 8, realtimeNs: 16 } as const;
const IRQCHIP_BYTES = 520;
const IRQCHIPS = 3;

export function saveVm(machine: KvmMachine): VmState {
  const pit = new Uint8Array(PIT_BYTES);
  machineIoctl(machine, Ioctl.GET_PIT2, pit);
  const clock = readClock(machine);
  const irqchips = Array.from({ length: IRQCHIPS }, (_, id) => {
    const chip = new Uint8Array(IRQCHIP_BYTES);
    chip[0] = id;
    machineIoctl(machine, Ioctl.GET_IRQCHIP, chip);
    return chip;
  });
  return { pit, ...clock, irqchips };
}

/** Where KVM does not give the wall clock of the same instant, the process's own is taken right after it. */
function readClock(machine: KvmMachine): { clockNs: bigint; realtimeNs: bigint } {
  const clock = new Uint8Array(CLOCK_BYTES);
  machineIoctl(machine, Ioctl.GET_CLOCK, clock);
  const view = new DataView(clock.buffer);
  const hasRealtime = (view.getUint32(Clock.flags, true) & CLOCK_REALTIME) !== 0;
  return {
    clockNs: view.getBigUint64(Clock.ns, true),
    realtimeNs: hasRealtime ? view.getBigUint64(Clock.realtimeNs, true) : wallClockNs(),
  };
}

/** Where KVM can, it adds the time from `time.nowNs` to the ioctl itself. */
function setClock(machine: KvmMachine, clockNs: bigint, time: ElapsedTime): void {
  const clock = new Uint8Array(CLOCK_BYTES);
  const view = new DataView(clock.buffer);
  view.setBigUint64(Clock.ns, clockNs + time.addedNs, true);
  const counts = time.addedNs > 0n;
  if (counts && (kvmIoctl(Ioctl.CHECK_EXTENSION, Capability.ADJUST_CLOCK) & CLOCK_REALTIME) !== 0) {
    view.setUint32(Clock.flags, CLOCK_REALTIME, true);
    view.setBigUint64(Clock.realtimeNs, time.nowNs, true);
  }
  machineIoctl(machine, Ioctl.SET_CLOCK, clock);
}

/** Call it after the vCPUs are restored. */
export function restoreVm(machine: KvmMachine, state: VmState, time: ElapsedTime): void {
  machineIoctl(machine, Ioctl.SET_PIT2, state.pit);
  setClock(machine, state.clockNs, time);
  for (const chip of state.irqchips) machineIoctl(machine, Ioctl.SET_IRQCHIP, chip);
}

/** The check of this state in a snapshot. */
export const VM_STATE: Check<VmState> = object(
  {
    pit: bytes(PIT_BYTES),
    clockNs: unsigned(63),
    realtimeNs: optional(unsigned(63)),
    irqchips: satisfying(
      list(bytes(IRQCHIP_BYTES), IRQCHIPS, IRQCHIPS),
      (chips) => chips.every((chip, id) => chip[0] === id),
      'are not in the order master PIC, slave PIC, IOAPIC',
    ),
  },
  { others: 'ignore' },
);
