import assert from 'node:assert/strict';
import { acpiTables } from '../../../../src/vmm/boot/acpi-tables.js';
import { MAX_CPUS } from '../../../../src/vmm/boot/interrupt-wiring.js';
import { LowMemory } from '../../../../src/vmm/boot/memory-layout.js';
import { MAX_VIRTIO_DEVICES, virtioWindows } from '../../../../src/vmm/virtio/windows.js';
import { madtEntries, readAcpi } from './firmware-reader.js';

const GPA = LowMemory.acpi;

describe('the ACPI tables', () => {
  it('are reachable from the RSDP, with correct checksums', () => {
    const tables = readAcpi(acpiTables(GPA, 2, [], false), GPA);
    assert.deepEqual([...tables.keys()].sort(), ['APIC', 'DSDT', 'FACP', 'FACS', 'XSDT']);
  });

  it('end before the VM generation ID with the most processors', () => {
    assert(
      GPA + acpiTables(GPA, MAX_CPUS, virtioWindows(MAX_VIRTIO_DEVICES), true).length <=
        LowMemory.generationId,
    );
  });

  it('describe the registers, and are not hardware-reduced', () => {
    const fadt = readAcpi(acpiTables(GPA, 1, [], false), GPA).get('FACP')!;
    assert.equal(fadt.length, 276);
    assert.equal(fadt[8], 6, 'revision');
    assert.equal(fadt.readUInt16LE(46), 9, 'SCI_INT');
    assert.equal(fadt.readUInt32LE(56), 0x600, 'PM1a_EVT_BLK');
    assert.equal(fadt.readUInt32LE(64), 0x604, 'PM1a_CNT_BLK');
    assert.deepEqual([fadt[88], fadt[89]], [4, 2]);
    assert.equal(fadt.readUInt32LE(76), 0, 'no PM timer');
    assert.equal(fadt[108], 0x32, 'century');
    assert.equal(fadt.readUInt16LE(109) & 3, 3, 'legacy devices, 8042');
    const flags = fadt.readUInt32LE(112);
    assert.equal(flags & (1 << 20), 0, 'HW_REDUCED_ACPI');
    assert.equal(flags & (1 << 10), 1 << 10, 'RESET_REG_SUP');
    assert.equal(flags & 0x30, 0x20, 'a fixed power button, and no sleep button');
    // Port 0x64, a byte, and what to write there.
    assert.deepEqual(fadt.subarray(116, 128), Buffer.from([1, 8, 0, 1, 0x64, 0, 0, 0, 0, 0, 0, 0]));
    assert.equal(fadt[128], 0xfe);
    assert.equal(fadt.readUInt32LE(40), Number(fadt.readBigUInt64LE(140)), 'both addresses of the DSDT');
    assert.equal(fadt.readBigUInt64LE(152), 0x600n);
    assert.equal(fadt.readBigUInt64LE(176), 0x604n);
  });

  for (const cpus of [1, 2, MAX_CPUS]) {
    it(`list ${cpus} processors and their interrupt wiring`, () => {
      const madt = readAcpi(acpiTables(GPA, cpus, [], false), GPA).get('APIC')!;
      assert.equal(madt.readUInt32LE(36), 0xfee0_0000);
      const entries = madtEntries(madt);
      const ofType = (type: number) => entries.filter((entry) => entry[0] === type);
      const lapics = ofType(0);
      assert.deepEqual(
        lapics.map((entry) => [entry[3], entry.readUInt32LE(4)]),
        Array.from({ length: cpus }, (_, id) => [id, 1]),
      );
      assert.deepEqual(
        ofType(1).map((entry) => [entry[2], entry.readUInt32LE(4), entry.readUInt32LE(8)]),
        [[cpus, 0xfec0_0000, 0]],
      );
      assert.deepEqual(
        ofType(2).map((entry) => [entry[3], entry.readUInt32LE(4), entry.readUInt16LE(8)]),
        [
          [0, 2, 0],
          [9, 9, 0xd],
        ],
      );
      assert.deepEqual(ofType(4), [Buffer.from([4, 6, 0xff, 0, 0, 1])]);
    });
  }

  it('describe power-off and the serial port', () => {
    const dsdt = readAcpi(acpiTables(GPA, 1, [], false), GPA).get('DSDT')!;
    const aml = dsdt.subarray(36).toString('hex');
    assert(aml.startsWith('085c5f53355f1208040a050a050000'), '\\_S5 is {5, 5, 0, 0}');
    assert(aml.includes('085f4849440c41d00501'), '_HID is PNP0501');
    assert(aml.includes('4701f803f80301082210007900'), '_CRS is 0x3f8, 8 ports, IRQ 4');
  });

  it('describe the VM generation ID, and the interrupt that tells of a new one', () => {
    const dsdt = readAcpi(acpiTables(GPA, 1, [], true), GPA).get('DSDT')!;
    const aml = dsdt.subarray(36).toString('hex');
    const text = (string: string) => Buffer.from(`${string}\0`).toString('hex');
    assert(aml.includes(`085f4349440d${text('VM_Gen_Counter')}`), '_CID');
    assert(aml.includes(`08414444521208020c00d00e0000`), 'ADDR is {0xed000, 0}');
    assert(aml.includes(`085f4849440d${text('ACPI0013')}`), '_HID of the Generic Event Device');
    assert(aml.includes('89060003010e000000'), 'its interrupt is 14: edge-triggered, active high');
    assert(aml.includes('14135f45565409a00c93680a0e865647454e0a80'), '_EVT notifies VGEN of 0x80');
    assert(!acpiTables(GPA, 1, [], false).includes('VGEN'), 'a machine without an ID has neither');
  });

  it('describe each virtio device with its window and its interrupt', () => {
    const dsdt = readAcpi(acpiTables(GPA, 1, virtioWindows(4), false), GPA).get('DSDT')!;
    const aml = dsdt.subarray(36).toString('hex');
    const hid = `085f4849440d${Buffer.from('LNRO0005\0').toString('hex')}`;
    assert.equal(aml.split(hid).length - 1, 4, '_HID of each');
    for (const [base, gsi] of [
      ['000000d0', '05'],
      ['001000d0', '0a'],
      ['002000d0', '0b'],
      ['003000d0', '10'],
    ]) {
      const resources = `86090001${base}001000008906000301${gsi}0000007900`;
      assert(aml.includes(resources), `the window at ${base}`);
    }
  });
});
