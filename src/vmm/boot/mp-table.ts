/**
 * The MP configuration table, for kernels that do not read ACPI. Intel MultiProcessor Specification 1.4, chapter 4.
 */
import { SCI_IRQ } from '../devices/ports.js';
import type { VirtioWindow } from '../virtio/windows.js';
import { checksum } from './checksum.js';
import {
  CASCADE_IRQ,
  EXTINT_LINT,
  IOAPIC_GPA,
  ISA_IRQS,
  ioapicId,
  ioapicPin,
  LAPIC_GPA,
  NMI_LINT,
} from './interrupt-wiring.js';

const SPEC_REVISION = 4;
const EntryType = { processor: 0, bus: 1, ioapic: 2, ioInterrupt: 3, localInterrupt: 4 } as const;
const InterruptType = { int: 0, nmi: 1, extInt: 3 } as const;

const HEADER_BYTES = 44;
const LAPIC_VERSION = 0x14;
const IOAPIC_VERSION = 0x11;
const CpuFlags = { enabled: 1, boot: 2 } as const;
/** Family 6; FPU and APIC on chip. Kernels take the rest from CPUID. */
const CPU_SIGNATURE = 0x600;
const CPU_FEATURES = 0x201;
/** Polarity 1, trigger mode 1. */
const EDGE_ACTIVE_HIGH = 0b0101;
const ISA_BUS = 0;
const ALL_LAPICS = 0xff;

/** The floating pointer structure, for the first KiB of the EBDA: a kernel finds the table by it. */
export function mpFloatingPointer(tableGpa: number): Buffer {
  const pointer = Buffer.alloc(16);
  pointer.write('_MP_', 0, 'latin1');
  pointer.writeUInt32LE(tableGpa, 4);
  pointer.writeUInt8(pointer.length / 16, 8);
  pointer.writeUInt8(SPEC_REVISION, 9);
  pointer.writeUInt8(checksum(pointer), 10);
  return pointer;
}

/**
 * @param cpus the number of processors; their APIC IDs are 0 to cpus − 1
 * @param windows virtio devices; those with an ISA interrupt need no entry of their own
 */
export function mpTable(cpus: number, windows: readonly VirtioWindow[]): Buffer {
  const entries: Buffer[] = [];
  for (let id = 0; id < cpus; id++) entries.push(processor(id));
  entries.push(isaBus(), ioapic(cpus));
  for (let irq = 0; irq < ISA_IRQS; irq++) {
    if (irq !== CASCADE_IRQ) {
      entries.push(interrupt(EntryType.ioInterrupt, InterruptType.int, irq, ioapicId(cpus), ioapicPin(irq)));
    }
  }
  for (const { gsi } of windows) {
    if (gsi >= ISA_IRQS) {
      entries.push(
        interrupt(EntryType.ioInterrupt, InterruptType.int, gsi, ioapicId(cpus), gsi, EDGE_ACTIVE_HIGH),
      );
    }
  }
  entries.push(interrupt(EntryType.localInterrupt, InterruptType.extInt, 0, 0, EXTINT_LINT));
  entries.push(interrupt(EntryType.localInterrupt, InterruptType.nmi, 0, ALL_LAPICS, NMI_LINT));

  const header = Buffer.alloc(HEADER_BYTES);
  const table = Buffer.concat([header, ...entries]);
  table.write('PCMP', 0, 'latin1');
  table.writeUInt16LE(table.length, 4);
  table.writeUInt8(SPEC_REVISION, 6);
  table.write('LIVESNAP'.padEnd(8), 8, 'latin1');
  table.write('MICROVM'.padEnd(12), 16, 'latin1');
  table.writeUInt16LE(entries.length, 34);
  table.writeUInt32LE(LAPIC_GPA, 36);
  table.writeUInt8(checksum(table), 7);
  return table;
}

function processor(id: number): Buffer {
  const entry = Buffer.alloc(20);
  entry.writeUInt8(EntryType.processor, 0);
  entry.writeUInt8(id, 1);
  entry.writeUInt8(LAPIC_VERSION, 2);
  entry.writeUInt8(CpuFlags.enabled | (id === 0 ? CpuFlags.boot : 0), 3);
  entry.writeUInt32LE(CPU_SIGNATURE, 4);
  entry.writeUInt32LE(CPU_FEATURES, 8);
  return entry;
}

function isaBus(): Buffer {
  const entry = Buffer.alloc(8);
  entry.writeUInt8(EntryType.bus, 0);
  entry.writeUInt8(ISA_BUS, 1);
  entry.write('ISA'.padEnd(6), 2, 'latin1');
  return entry;
}

function ioapic(cpus: number): Buffer {
  const entry = Buffer.alloc(8);
  entry.writeUInt8(EntryType.ioapic, 0);
  entry.writeUInt8(ioapicId(cpus), 1);
  entry.writeUInt8(IOAPIC_VERSION, 2);
  entry.writeUInt8(1, 3);
  entry.writeUInt32LE(IOAPIC_GPA, 4);
  return entry;
}

/** Flags of an interrupt entry: active high, level-triggered. */
const LEVEL_HIGH = 0b1101;

/**
 * I/O and local interrupt entries have the same layout. Flags 0: polarity and trigger of the ISA bus. Of the ISA
 * interrupts only the SCI of ACPI is level-triggered.
 */
function interrupt(
  entryType: number,
  type: number,
  irq: number,
  apicId: number,
  pin: number,
  flags = type === InterruptType.int && irq === SCI_IRQ ? LEVEL_HIGH : 0,
): Buffer {
  return Buffer.from([entryType, type, flags, 0, ISA_BUS, irq, apicId, pin]);
}
