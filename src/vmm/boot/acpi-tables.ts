/**
 * The ACPI tables: RSDP, XSDT, FADT, FACS, MADT and DSDT. ACPI 6.5, chapter 5.
 *
 * The FADT is not hardware-reduced: with such a FADT Linux sets up no legacy interrupts, and ttyS0 loses IRQ 4. There
 * is no ACPI timer, no GPE and no SMI. The machine is in ACPI mode from the start. The power button is a fixed one, so
 * the DSDT does not mention it.
 */
import {
  COM1_BASE,
  COM1_IRQ,
  COM1_PORTS,
  GENERATION_ID_GPA,
  GENERATION_IRQ,
  KEYBOARD_COMMAND_PORT,
  KEYBOARD_RESET_COMMAND,
  PM1A_CONTROL_BLOCK,
  PM1A_CONTROL_BYTES,
  PM1A_EVENT_BLOCK,
  PM1A_EVENT_BYTES,
  RTC_CENTURY_REGISTER,
  SCI_IRQ,
  SLEEP_TYPE_S5,
} from '../devices/ports.js';
import { type VirtioWindow, WINDOW_BYTES } from '../virtio/windows.js';
import * as aml from './aml.js';
import { checksum } from './checksum.js';
import { IOAPIC_GPA, ioapicId, ioapicPin, LAPIC_GPA, NMI_LINT } from './interrupt-wiring.js';

const OEM_ID = 'LIVESN';
const OEM_TABLE_ID = 'LIVESNAP';
const CREATOR_ID = 'LVSN';

const HEADER_BYTES = 36;
/** FACS must be on a 64-byte boundary; the other tables are as well, for simplicity. */
const TABLE_ALIGNMENT = 64;

/**
 * All tables, one after another; the RSDP is first.
 * @param gpa the address of the tables, a multiple of 64
 */
export function acpiTables(
  gpa: number,
  cpus: number,
  windows: readonly VirtioWindow[],
  vmgenid: boolean,
): Buffer {
  const placed: { at: number; bytes: Buffer }[] = [];
  let next = TABLE_ALIGNMENT; // after the RSDP of 36 bytes, which is written once the XSDT has an address
  const place = (bytes: Buffer): number => {
    const at = next;
    placed.push({ at, bytes });
    next += Math.ceil(bytes.length / TABLE_ALIGNMENT) * TABLE_ALIGNMENT;
    return gpa + at;
  };
  const fadtGpa = place(fadt(place(facs()), place(dsdt(windows, vmgenid))));
  const xsdtGpa = place(xsdt([fadtGpa, place(madt(cpus))]));
  placed.push({ at: 0, bytes: rsdp(xsdtGpa) });
  const tables = Buffer.alloc(next);
  for (const { at, bytes } of placed) bytes.copy(tables, at);
  return tables;
}

/** A table with the header that all but RSDP and FACS share (section 5.2.6). */
function table(signature: string, revision: number, body: Buffer): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(HEADER_BYTES), body]);
  bytes.write(signature, 0, 'latin1');
  bytes.writeUInt32LE(bytes.length, 4);
  bytes.writeUInt8(revision, 8);
  bytes.write(OEM_ID, 10, 'latin1');
  bytes.write(OEM_TABLE_ID, 16, 'latin1');
  bytes.writeUInt32LE(1, 24);
  bytes.write(CREATOR_ID, 28, 'latin1');
  bytes.writeUInt32LE(1, 32);
  bytes.writeUInt8(checksum(bytes), 9);
  return bytes;
}

/** Section 5.2.5.3. The first 20 bytes have a checksum of their own, from ACPI 1.0. */
function rsdp(xsdtGpa: number): Buffer {
  const bytes = Buffer.alloc(36);
  bytes.write('RSD PTR ', 0, 'latin1');
  bytes.write(OEM_ID, 9, 'latin1');
  bytes.writeUInt8(2, 15);
  bytes.writeUInt32LE(bytes.length, 20);
  bytes.writeBigUInt64LE(BigInt(xsdtGpa), 24);
  bytes.writeUInt8(checksum(bytes.subarray(0, 20)), 8);
  bytes.writeUInt8(checksum(bytes), 32);
  return bytes;
}

function xsdt(tableGpas: readonly number[]): Buffer {
  const body = Buffer.alloc(tableGpas.length * 8);
  tableGpas.forEach((gpa, i) => {
    body.writeBigUInt64LE(BigInt(gpa), i * 8);
  });
  return table('XSDT', 1, body);
}

/** Section 5.2.10. Only the global lock in it matters, and only the guest takes it. */
function facs(): Buffer {
  const bytes = Buffer.alloc(64);
  bytes.write('FACS', 0, 'latin1');
  bytes.writeUInt32LE(bytes.length, 4);
  bytes.writeUInt8(2, 32);
  return bytes;
}

/** Offsets within the FADT (table 5.9). */
const Fadt = {
  firmwareCtrl: 36,
  dsdt: 40,
  sciInt: 46,
  pm1aEvtBlk: 56,
  pm1aCntBlk: 64,
  pm1EvtLen: 88,
  pm1CntLen: 89,
  pLvl2Lat: 96,
  pLvl3Lat: 98,
  century: 108,
  iapcBootArch: 109,
  flags: 112,
  resetReg: 116,
  resetValue: 128,
  minorVersion: 131,
  xDsdt: 140,
  xPm1aEvtBlk: 148,
  xPm1aCntBlk: 172,
  bytes: 276,
} as const;

const BootArch = { legacyDevices: 1 << 0, keyboardController: 1 << 1, vgaNotPresent: 1 << 2 } as const;
const FadtFlags = {
  wbinvd: 1 << 0,
  procC1: 1 << 2,
  /** The fixed registers have a power button (bit 4 is clear), but no sleep button and no RTC alarm. */
  noFixedSleepButton: 1 << 5,
  noFixedRtc: 1 << 6,
  resetRegSupported: 1 << 10,
} as const;
/** From these latencies on, C2 and C3 do not exist. */
const NO_C2_LATENCY_US = 101;
const NO_C3_LATENCY_US = 1001;

function fadt(facsGpa: number, dsdtGpa: number): Buffer {
  const body = Buffer.alloc(Fadt.bytes - HEADER_BYTES);
  const at = (offset: number): number => offset - HEADER_BYTES;
  body.writeUInt32LE(facsGpa, at(Fadt.firmwareCtrl));
  body.writeUInt32LE(dsdtGpa, at(Fadt.dsdt));
  body.writeUInt16LE(SCI_IRQ, at(Fadt.sciInt));
  body.writeUInt32LE(PM1A_EVENT_BLOCK, at(Fadt.pm1aEvtBlk));
  body.writeUInt32LE(PM1A_CONTROL_BLOCK, at(Fadt.pm1aCntBlk));
  body.writeUInt8(PM1A_EVENT_BYTES, at(Fadt.pm1EvtLen));
  body.writeUInt8(PM1A_CONTROL_BYTES, at(Fadt.pm1CntLen));
  body.writeUInt16LE(NO_C2_LATENCY_US, at(Fadt.pLvl2Lat));
  body.writeUInt16LE(NO_C3_LATENCY_US, at(Fadt.pLvl3Lat));
  body.writeUInt8(RTC_CENTURY_REGISTER, at(Fadt.century));
  body.writeUInt16LE(
    BootArch.legacyDevices | BootArch.keyboardController | BootArch.vgaNotPresent,
    at(Fadt.iapcBootArch),
  );
  const { wbinvd, procC1, noFixedSleepButton, noFixedRtc, resetRegSupported } = FadtFlags;
  body.writeUInt32LE(wbinvd | procC1 | noFixedSleepButton | noFixedRtc | resetRegSupported, at(Fadt.flags));
  ioAddress(KEYBOARD_COMMAND_PORT, 1).copy(body, at(Fadt.resetReg));
  body.writeUInt8(KEYBOARD_RESET_COMMAND, at(Fadt.resetValue));
  body.writeUInt8(5, at(Fadt.minorVersion));
  body.writeBigUInt64LE(BigInt(dsdtGpa), at(Fadt.xDsdt));
  ioAddress(PM1A_EVENT_BLOCK, PM1A_EVENT_BYTES).copy(body, at(Fadt.xPm1aEvtBlk));
  ioAddress(PM1A_CONTROL_BLOCK, PM1A_CONTROL_BYTES).copy(body, at(Fadt.xPm1aCntBlk));
  return table('FACP', 6, body);
}

/** A Generic Address Structure in port space (section 5.2.3.2), accessed by bytes for one byte, else by words. */
function ioAddress(port: number, sizeBytes: number): Buffer {
  const address = Buffer.alloc(12);
  address.writeUInt8(1, 0);
  address.writeUInt8(sizeBytes * 8, 1);
  address.writeUInt8(sizeBytes === 1 ? 1 : 2, 3);
  address.writeBigUInt64LE(BigInt(port), 4);
  return address;
}

/** Section 5.2.12. */
function madt(cpus: number): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(LAPIC_GPA, 0);
  head.writeUInt32LE(1, 4); // PCAT_COMPAT: there are 8259s too
  const entries = Array.from({ length: cpus }, (_, id) => localApic(id));
  // Flags 0: polarity and trigger of the bus. The SCI is level-triggered, active high.
  entries.push(
    ioApic(cpus),
    override(0, ioapicPin(0), 0),
    override(SCI_IRQ, SCI_IRQ, 0b1101),
    localApicNmi(),
  );
  return table('APIC', 5, Buffer.concat([head, ...entries]));
}

const localApic = (id: number): Buffer => Buffer.from([0, 8, id, id, 1, 0, 0, 0]);

function ioApic(cpus: number): Buffer {
  const entry = Buffer.from([1, 12, ioapicId(cpus), 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  entry.writeUInt32LE(IOAPIC_GPA, 4);
  return entry;
}

/** Interrupt source override: the ISA interrupt `irq` is the global interrupt `gsi`. */
const override = (irq: number, gsi: number, flags: number): Buffer =>
  Buffer.from([2, 10, 0, irq, gsi, 0, 0, 0, flags, 0]);

/** For every processor (ID 0xff). */
const localApicNmi = (): Buffer => Buffer.from([4, 6, 0xff, 0, 0, NMI_LINT]);

/** Describes power-off by the PM1a control register, the serial port, the VM generation ID, and virtio devices. */
function dsdt(windows: readonly VirtioWindow[], vmgenid: boolean): Buffer {
  const sleepType = aml.integer(SLEEP_TYPE_S5);
  const zero = aml.integer(0);
  return table(
    'DSDT',
    2,
    Buffer.concat([
      aml.name('\\_S5', aml.packageOf(sleepType, sleepType, zero, zero)),
      aml.scope(
        '\\_SB',
        aml.device(
          'COM1',
          aml.name('_HID', aml.eisaId('PNP0501')),
          aml.name('_UID', aml.integer(1)),
          aml.name('_STA', aml.integer(0x0f)),
          aml.name('_CRS', aml.resourceTemplate(aml.ioPorts(COM1_BASE, COM1_PORTS), aml.isaIrq(COM1_IRQ))),
        ),
        ...(vmgenid ? [generationId(), genericEvents()] : []),
        ...windows.map(virtioMmio),
      ),
    ]),
  );
}

/** A virtio-mmio device, as Linux and QEMU know them by this ID. */
const virtioMmio = ({ gpa, gsi }: VirtioWindow, index: number): Buffer =>
  aml.device(
    `VR${index.toString().padStart(2, '0')}`,
    aml.name('_HID', aml.string('LNRO0005')),
    aml.name('_UID', aml.integer(index)),
    aml.name('_CRS', aml.resourceTemplate(aml.memory32Fixed(gpa, WINDOW_BYTES), aml.extendedInterrupt(gsi))),
  );

const GENERATION_DEVICE = 'VGEN';
/** To a generation ID it means: the ID has changed (Microsoft, "Virtual Machine Generation ID"). */
const NOTIFY_CHANGED = 0x80;

/** Guests find it by its compatible ID, and the 16 bytes by ADDR: the lower and the upper half of their address. */
const generationId = (): Buffer =>
  aml.device(
    GENERATION_DEVICE,
    aml.name('_HID', aml.string('LVSN0001')),
    aml.name('_CID', aml.string('VM_Gen_Counter')),
    aml.name('_DDN', aml.string('VM_Gen_Counter')),
    aml.name('ADDR', aml.packageOf(aml.integer(GENERATION_ID_GPA), aml.integer(0))),
  );

/** The Generic Event Device (section 5.6.9): which object each of its interrupts is about. */
const genericEvents = (): Buffer =>
  aml.device(
    'GED',
    aml.name('_HID', aml.string('ACPI0013')),
    aml.name('_UID', aml.integer(0)),
    aml.name('_CRS', aml.resourceTemplate(aml.extendedInterrupt(GENERATION_IRQ))),
    aml.method(
      '_EVT',
      1,
      aml.ifThen(
        aml.equal(aml.argument(0), aml.integer(GENERATION_IRQ)),
        aml.notify(GENERATION_DEVICE, NOTIFY_CHANGED),
      ),
    ),
  );
