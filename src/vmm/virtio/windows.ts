/**
 * Where the virtio devices of a machine are: a window of registers in the MMIO hole and an interrupt for each. The
 * devices, the firmware tables and the kernel's command line take these facts from here.
 */
import { LivesnapError } from '../../errors.js';

export interface VirtioWindow {
  /** The guest-physical address of the first register. */
  readonly gpa: number;
  /** The pin of the IOAPIC, and for a number below 16 the ISA interrupt: edge-triggered, active high, not shared. */
  readonly gsi: number;
}

export const WINDOW_BYTES = 0x1000;
const FIRST_GPA = 0xd000_0000;
/** ISA interrupts without a device, then the pins of the IOAPIC beyond them. */
const GSIS = [5, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23] as const;
export const MAX_VIRTIO_DEVICES = GSIS.length;

/**
 * The windows of the first `count` virtio devices.
 * @throws LivesnapError USAGE when there are not as many
 */
export function virtioWindows(count: number): readonly VirtioWindow[] {
  if (count > MAX_VIRTIO_DEVICES) {
    throw new LivesnapError('USAGE', `the machine would have ${count - 1} disks, networks and balloons`, {
      hint: `A machine can have ${MAX_VIRTIO_DEVICES - 1} of them together.`,
    });
  }
  return GSIS.slice(0, count).map((gsi, i) => ({ gpa: FIRST_GPA + i * WINDOW_BYTES, gsi }));
}

/** What tells a kernel without ACPI of these devices: an option of its command line for each. */
export const windowOptions = (windows: readonly VirtioWindow[]): string[] =>
  windows.map(({ gpa, gsi }) => `virtio_mmio.device=${WINDOW_BYTES / 1024}K@0x${gpa.toString(16)}:${gsi}`);
