/**
 * I/O ports, interrupts and other values of devices that the firmware tables repeat. The devices and the ACPI tables
 * both take them from here.
 */

export const COM1_BASE = 0x3f8;
export const COM1_PORTS = 8;
export const COM1_IRQ = 4;

/** The data port; the command port is four above it. */
export const KEYBOARD_BASE = 0x60;
export const KEYBOARD_COMMAND_PORT = 0x64;
export const KEYBOARD_IRQ = 1;
export const KEYBOARD_RESET_COMMAND = 0xfe;

export const RTC_BASE = 0x70;
export const RTC_CENTURY_REGISTER = 0x32;

/** Status (2 bytes), then enable (2 bytes). */
export const PM1A_EVENT_BLOCK = 0x600;
export const PM1A_EVENT_BYTES = 4;
export const PM1A_CONTROL_BLOCK = 0x604;
export const PM1A_CONTROL_BYTES = 2;
export const SCI_IRQ = 9;
/** The SLP_TYP that turns the machine off. */
export const SLEEP_TYPE_S5 = 5;

/** The page of the VM generation ID. No guest uses it for anything else, because it lies in a reserved range. */
export const GENERATION_ID_GPA = 0xe_d000;
/** Edge-triggered, active high. On a PC it is that of a disk, which a guest finds by PCI only. */
export const GENERATION_IRQ = 14;
