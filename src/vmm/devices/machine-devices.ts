/**
 * The devices of a machine, which follow from its config. A new kind of device is its file and one line here.
 *
 * KVM models the PIC, IOAPIC, LAPIC and PIT (with port 0x61, by KVM_PIT_SPEAKER_DUMMY). The delay port 0x80 needs no
 * device: the bus's answer to an unclaimed port is right for it.
 */
import type { MachineConfig } from '../machine-types.js';
import { balloonDevice } from '../virtio/balloon.js';
import { virtioMmio } from '../virtio/mmio-transport.js';
import { entropyDevice } from '../virtio/rng.js';
import type { VirtioDescriptor } from '../virtio/virtio-device.js';
import { type VirtioWindow, virtioWindows } from '../virtio/windows.js';
import { powerManagement } from './acpi-pm.js';
import { realTimeClock } from './cmos-rtc.js';
import type { ConsoleDevice, DeviceDescriptor } from './device.js';
import { keyboardController } from './i8042.js';
import { com1 } from './serial-16550a.js';
import { generationId } from './vmgenid.js';

/** The devices of a machine, in the order in which they are saved and restored. The first one is the console. */
export type DeviceList = readonly [DeviceDescriptor<ConsoleDevice>, ...DeviceDescriptor[]];

/** What of a machine's config decides which devices it has. */
export type DeviceConfig = Pick<MachineConfig, 'vmgenid' | 'rng' | 'disks' | 'nets' | 'balloon'>;

/** Devices whose descriptors are made with parts of the device thread. */
export interface HostedDevices {
  /** One for each disk. */
  readonly disks: readonly VirtioDescriptor[];
  /** One for each network. */
  readonly nets: readonly VirtioDescriptor[];
}

/** The devices that every machine has. */
export const LEGACY_DEVICES: DeviceList = [com1, keyboardController, realTimeClock, powerManagement];

/** The virtio devices, in the order of their windows. */
const virtioDevices = (
  { rng = true, balloon = false }: DeviceConfig,
  { disks, nets }: HostedDevices,
): readonly VirtioDescriptor[] => [
  ...(rng ? [entropyDevice] : []),
  ...disks,
  ...nets,
  ...(balloon ? [balloonDevice] : []),
];

/** The windows of the virtio devices. Errors: USAGE, if there are too many. */
export const deviceWindows = ({
  rng = true,
  disks = [],
  nets = [],
  balloon = false,
}: DeviceConfig): readonly VirtioWindow[] =>
  virtioWindows((rng ? 1 : 0) + disks.length + nets.length + (balloon ? 1 : 0));

/** All devices of a machine with this config. Errors: USAGE, if there are too many. */
export function machineDevices(config: DeviceConfig, hosted: HostedDevices): DeviceList {
  const windows = deviceWindows(config);
  const virtio = virtioDevices(config, hosted).map((descriptor, i) => virtioMmio(descriptor, windows[i]!));
  const { vmgenid = true } = config;
  return [...LEGACY_DEVICES, ...(vmgenid ? [generationId] : []), ...virtio];
}
