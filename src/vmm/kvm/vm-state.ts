/** The state of the devices that KVM models for the whole machine: PIC, IOAPIC, PIT and the paravirtual clock. */
import { type KvmMachine, machineIoctl } from '../../native/kvm.js';
import { bytes, type Check, list, object, satisfying, unsigned } from '../../schema.js';
import { Ioctl } from './abi.js';

export interface VmState {
  /** struct kvm_pit_state2. */
  readonly pit: Uint8Array;
  /** Nanoseconds of the guest's kvmclock. */
  readonly clockNs: bigint;
  /** struct kvm_irqchip of the master PIC, the slave PIC and the IOAPIC. */
  readonly irqchips: readonly Uint8Array[];
}

const PIT_BYTES = 112;
const CLOCK_BYTES = 48;
const IRQCHIP_BYTES = 520;
const IRQCHIPS = 3;

export function saveVm(machine: KvmMachine): VmState {
  const pit = new Uint8Array(PIT_BYTES);
  machineIoctl(machine, Ioctl.GET_PIT2, pit);
  const clock = new Uint8Array(CLOCK_BYTES);
  machineIoctl(machine, Ioctl.GET_CLOCK, clock);
  const irqchips = Array.from({ length: IRQCHIPS }, (_, id) => {
    const chip = new Uint8Array(IRQCHIP_BYTES);
    chip[0] = id;
    machineIoctl(machine, Ioctl.GET_IRQCHIP, chip);
    return chip;
  });
  return { pit, clockNs: new DataView(clock.buffer).getBigUint64(0, true), irqchips };
}

/** Call it after the vCPUs are restored. The clock continues from its saved value: flags 0 ignore the time since. */
export function restoreVm(machine: KvmMachine, state: VmState): void {
  machineIoctl(machine, Ioctl.SET_PIT2, state.pit);
  const clock = new Uint8Array(CLOCK_BYTES);
  new DataView(clock.buffer).setBigUint64(0, state.clockNs, true);
  machineIoctl(machine, Ioctl.SET_CLOCK, clock);
  for (const chip of state.irqchips) machineIoctl(machine, Ioctl.SET_IRQCHIP, chip);
}

/** The check of this state in a snapshot. */
export const VM_STATE: Check<VmState> = object(
  {
    pit: bytes(PIT_BYTES),
    clockNs: unsigned(63),
    irqchips: satisfying(
      list(bytes(IRQCHIP_BYTES), IRQCHIPS, IRQCHIPS),
      (chips) => chips.every((chip, id) => chip[0] === id),
      'are not in the order master PIC, slave PIC, IOAPIC',
    ),
  },
  { others: 'ignore' },
);
