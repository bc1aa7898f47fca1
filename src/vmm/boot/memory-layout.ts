/**
 * The guest-physical addresses of RAM, firmware tables and the boot loader's structures, and the memory map that the
 * guest gets (ACPI 6.5 section 15, "System Address Map Interfaces").
 *
 * Invariants:
 * - RAM below 4 GiB ends at or below {@link HOLE_START}.
 * - The loader's structures below 1 MiB do not overlap.
 * - No reserved range is RAM in the memory map.
 */

import { LivesnapError } from '../../errors.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { GENERATION_ID_GPA } from '../devices/ports.js';
import { hex } from './image-file.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** A range of guest RAM: one KVM memory slot. Addresses and sizes are in bytes. */
export interface RamSlot {
  readonly gpa: number;
  readonly sizeBytes: number;
}

/** First address of the MMIO hole below 4 GiB: LAPIC, IOAPIC, virtio-mmio devices, KVM's own pages. */
export const HOLE_START = 3 * GIB;
/** First address after the MMIO hole. */
const HOLE_END = 4 * GIB;
/** From here on the hole is in use: IOAPIC, LAPIC, and the pages that KVM keeps for itself below 4 GiB. */
const PLATFORM_START = 0xfec0_0000;
/** First address after the first MiB: a kernel lies above it. */
export const HIGH_MEMORY_START = MIB;

export const MIN_MEMORY_BYTES = 2 * MIB;
/** Fits into 46 bits of physical address, which every processor with KVM has. */
export const MAX_MEMORY_BYTES = 32 * 1024 * GIB;

/** The loader's structures below 1 MiB, by address. */
export const LowMemory = {
  /** BIOS data area: the EBDA's segment at +0x0e, the size of base memory in KiB at +0x13. */
  biosData: 0x400,
  gdt: 0x500,
  /** struct boot_params, one page ("zero page"). */
  bootParams: 0x7000,
  /** First address after the boot stack. */
  stackTop: 0x9000,
  /** PML4, PDPT and four page directories, a page each. */
  pageTables: 0x9000,
  cmdline: 0x2_0000,
  /** First byte after the space for the command line. */
  cmdlineEnd: 0x3_0000,
  /** Extended BIOS data area, the last KiB of base memory; its first byte is its size in KiB. */
  ebda: 0x9_fc00,
  /** The MP floating pointer, on a 16-byte boundary of the EBDA. */
  mpPointer: 0x9_fc10,
  ebdaEnd: 0xa_0000,
  /** ACPI tables, up to the VM generation ID, and the MP configuration table, in the BIOS's read-only area. */
  acpi: 0xe_0000,
  /** The 16 bytes of the VM generation ID, in a page of their own. */
  generationId: GENERATION_ID_GPA,
  /**
   * struct setup_data, at most two pages. It lies in a reserved range: in RAM each list entry would split the guest's
   * memory map, which Linux searches for every page.
   */
  setupData: 0xe_e000,
  mpTable: 0xf_0000,
  biosEnd: 0x10_0000,
} as const;

/** e820 types (ACPI 6.5 table 15.6). */
const E820Type = { ram: 1, reserved: 2 } as const;

export interface E820Entry {
  readonly gpa: number;
  readonly sizeBytes: number;
  readonly type: number;
}

/**
 * The slots that make up `memoryBytes` of RAM: up to 3 GiB from address 0, the rest from 4 GiB.
 * @throws LivesnapError USAGE when the size is out of range or not a whole number of pages
 */
export function ramLayout(memoryBytes: number): readonly RamSlot[] {
  if (!(memoryBytes >= MIN_MEMORY_BYTES && memoryBytes <= MAX_MEMORY_BYTES)) {
    throw new LivesnapError('USAGE', `a machine needs 2 MiB to 32 TiB of memory, not ${memoryBytes} bytes`, {
      hint: 'Give a size such as 256M or 4G.',
    });
  }
  if (memoryBytes % PAGE_BYTES !== 0) {
    throw new LivesnapError(
      'USAGE',
      `the memory size ${memoryBytes} is not a multiple of ${PAGE_BYTES} bytes`,
      {
        hint: 'Give a size such as 256M or 4G.',
      },
    );
  }
  const below = Math.min(memoryBytes, HOLE_START);
  const slots: RamSlot[] = [{ gpa: 0, sizeBytes: below }];
  if (memoryBytes > below) slots.push({ gpa: HOLE_END, sizeBytes: memoryBytes - below });
  return slots;
}

/** The memory map of a guest with this RAM, ascending. Addresses in no entry are free for MMIO devices. */
export function e820(layout: readonly RamSlot[]): readonly E820Entry[] {
  const entries: E820Entry[] = [];
  const add = (from: number, to: number, type: number): void => {
    entries.push({ gpa: from, sizeBytes: to - from, type });
  };
  add(0, LowMemory.ebda, E820Type.ram);
  add(LowMemory.ebda, LowMemory.ebdaEnd, E820Type.reserved);
  add(LowMemory.acpi, LowMemory.biosEnd, E820Type.reserved);
  add(HIGH_MEMORY_START, lowRamEnd(layout), E820Type.ram);
  add(PLATFORM_START, HOLE_END, E820Type.reserved);
  for (const slot of layout) {
    if (slot.gpa >= HOLE_END) add(slot.gpa, slot.gpa + slot.sizeBytes, E820Type.ram);
  }
  return entries;
}

/** The hint for a kernel or initrd that needs RAM up to `end`, at or below {@link HOLE_START}. */
export const moreMemory = (end: number): string =>
  `Give the machine more memory: at least ${Math.ceil(end / MIB)}M.`;

/**
 * The limit that a part of the kernel exceeds, and the hint. The part ends at `end`, beyond the RAM, which ends at
 * `ramEnd`. More memory helps only below the hole.
 */
export function kernelLimit(end: bigint, ramEnd: number): { limit: string; hint: string } {
  if (end <= BigInt(HOLE_START))
    return { limit: `RAM ends at ${hex(ramEnd)}`, hint: moreMemory(Number(end)) };
  return {
    limit: `a kernel must end at or below ${hex(HOLE_START)}, where device addresses begin`,
    hint: 'Give a kernel that is loaded below 3 GiB.',
  };
}

/** Size of the RAM above 4 GiB. */
export const highRamBytes = (layout: readonly RamSlot[]): number =>
  layout.reduce((sum, { gpa, sizeBytes }) => (gpa >= HOLE_END ? sum + sizeBytes : sum), 0);

/** First address after the RAM that begins at 0. Kernel and initrd lie below it. */
export function lowRamEnd(layout: readonly RamSlot[]): number {
  return layout[0]!.sizeBytes;
}
