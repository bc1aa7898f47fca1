/**
 * The devices that every machine has. A new device is its file and one line here.
 *
 * KVM models the PIC, IOAPIC, LAPIC and PIT (with port 0x61, by KVM_PIT_SPEAKER_DUMMY). The delay port 0x80 needs no
 * device: the bus's answer to an unclaimed port is right for it.
 */
import { powerManagement } from './acpi-pm.js';
import { realTimeClock } from './cmos-rtc.js';
import type { ConsoleDevice, DeviceDescriptor } from './device.js';
import { keyboardController } from './i8042.js';
import { com1 } from './serial-16550a.js';

/** The devices of a machine, in the order in which they are saved and restored. The first one is the console. */
export type DeviceList = readonly [DeviceDescriptor<ConsoleDevice>, ...DeviceDescriptor[]];

export const MACHINE_DEVICES: DeviceList = [com1, keyboardController, realTimeClock, powerManagement];
