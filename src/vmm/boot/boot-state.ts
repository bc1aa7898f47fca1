/**
 * The registers of the boot processor at the kernel's first instruction, and the GDT and page tables that they point
 * to. kvm/vm.ts makes KVM_SET_SREGS and KVM_SET_REGS of them. Linux boot protocol, "64-bit Boot Protocol"; Intel SDM
 * volume 3, sections 3.4.5 and 4.5.
 *
 * General registers that are not named here are 0. TR, LDTR, debug registers, MSRs and the APIC keep their reset
 * values. The other processors wait for INIT and SIPI.
 */
import { PAGE_BYTES } from '../../page-stream.js';
import { LowMemory } from './memory-layout.js';

/** How the kernel was loaded and entered. */
export type BootPath = 'elf' | 'bzimage payload (gzip)' | 'bzimage payload (lz4)' | 'bzimage own entry';

/** The fields of struct kvm_segment, by their names there. */
export interface SegmentState {
  readonly base: bigint;
  readonly limit: number;
  readonly selector: number;
  readonly type: number;
  readonly present: number;
  readonly dpl: number;
  readonly db: number;
  readonly s: number;
  readonly l: number;
  readonly g: number;
  readonly avl: number;
}

export interface TableState {
  readonly base: bigint;
  readonly limit: number;
}

export interface BootState {
  readonly path: BootPath;
  readonly rip: bigint;
  readonly rsp: bigint;
  /** Address of struct boot_params. */
  readonly rsi: bigint;
  readonly rflags: bigint;
  readonly cr0: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly efer: bigint;
  readonly cs: SegmentState;
  /** DS, ES, FS, GS and SS. */
  readonly data: SegmentState;
  readonly gdt: TableState;
  readonly idt: TableState;
}

const Cr0 = { pe: 1n << 0n, mp: 1n << 1n, et: 1n << 4n, ne: 1n << 5n, wp: 1n << 16n, pg: 1n << 31n } as const;
const Cr4 = { pae: 1n << 5n } as const;
const Efer = { lme: 1n << 8n, lma: 1n << 10n } as const;
/** Bit 1 of RFLAGS is always set; interrupts are off. */
const RFLAGS_RESERVED = 2n;

/** The selectors that the boot protocol requires. */
const BOOT_CS = 0x10;
const BOOT_DS = 0x18;

const flat = { base: 0n, limit: 0xffff_ffff, present: 1, dpl: 0, s: 1, g: 1, avl: 0 } as const;
/** Execute/read, accessed. */
const CODE: SegmentState = { ...flat, selector: BOOT_CS, type: 0xb, db: 0, l: 1 };
/** Read/write, accessed. */
const DATA: SegmentState = { ...flat, selector: BOOT_DS, type: 0x3, db: 1, l: 0 };

const GDT_BYTES = BOOT_DS + 8;

export function bootState(path: BootPath, entry: number): BootState {
  return {
    path,
    rip: BigInt(entry),
    rsp: BigInt(LowMemory.stackTop),
    rsi: BigInt(LowMemory.bootParams),
    rflags: RFLAGS_RESERVED,
    cr0: Cr0.pe | Cr0.mp | Cr0.et | Cr0.ne | Cr0.wp | Cr0.pg,
    cr3: BigInt(LowMemory.pageTables),
    cr4: Cr4.pae,
    efer: Efer.lme | Efer.lma,
    cs: CODE,
    data: DATA,
    gdt: { base: BigInt(LowMemory.gdt), limit: GDT_BYTES - 1 },
    idt: { base: 0n, limit: 0 },
  };
}

/** The GDT for {@link LowMemory.gdt}: two null descriptors, code, data. */
export function bootGdt(): Buffer {
  const gdt = Buffer.alloc(GDT_BYTES);
  for (const segment of [CODE, DATA]) gdt.writeBigUInt64LE(descriptor(segment), segment.selector);
  return gdt;
}

/** A segment as a descriptor (SDM figure 3-8). */
function descriptor({ base, limit, type, s, dpl, present, avl, l, db, g }: SegmentState): bigint {
  const pages = BigInt(g ? limit >>> 12 : limit);
  const access = BigInt(type | (s << 4) | (dpl << 5) | (present << 7));
  const flags = BigInt(avl | (l << 1) | (db << 2) | (g << 3));
  return (
    (pages & 0xffffn) |
    ((base & 0xff_ffffn) << 16n) |
    (access << 40n) |
    ((pages >> 16n) << 48n) |
    (flags << 52n) |
    ((base >> 24n) << 56n)
  );
}

const ENTRIES_PER_TABLE = 512;
const LARGE_PAGE_BYTES = 2n << 20n;
/** Present, writable. */
const TABLE_FLAGS = 0x3n;
/** Present, writable, and a 2 MiB page. */
const LARGE_PAGE_FLAGS = 0x83n;
const MAPPED_GIB = 4;

/** Page tables for {@link LowMemory.pageTables}: the first 4 GiB, identity-mapped in 2 MiB pages. */
export function bootPageTables(): Buffer {
  const tables = Buffer.alloc((2 + MAPPED_GIB) * PAGE_BYTES);
  const pdpt = PAGE_BYTES;
  const directories = 2 * PAGE_BYTES;
  tables.writeBigUInt64LE(BigInt(LowMemory.pageTables + pdpt) | TABLE_FLAGS, 0);
  for (let gib = 0; gib < MAPPED_GIB; gib++) {
    const directory = LowMemory.pageTables + directories + gib * PAGE_BYTES;
    tables.writeBigUInt64LE(BigInt(directory) | TABLE_FLAGS, pdpt + gib * 8);
  }
  for (let i = 0; i < MAPPED_GIB * ENTRIES_PER_TABLE; i++) {
    tables.writeBigUInt64LE((BigInt(i) * LARGE_PAGE_BYTES) | LARGE_PAGE_FLAGS, directories + i * 8);
  }
  return tables;
}
