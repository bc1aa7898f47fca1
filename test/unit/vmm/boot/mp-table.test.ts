import assert from 'node:assert/strict';
import { MAX_CPUS } from '../../../../src/vmm/boot/interrupt-wiring.js';
import { LowMemory } from '../../../../src/vmm/boot/memory-layout.js';
import { mpFloatingPointer, mpTable } from '../../../../src/vmm/boot/mp-table.js';
import { MAX_VIRTIO_DEVICES, virtioWindows } from '../../../../src/vmm/virtio/windows.js';
import { mpEntries, sum } from './firmware-reader.js';

describe('the MP table', () => {
  it('is reachable from its floating pointer', () => {
    const pointer = mpFloatingPointer(0xf0000);
    assert.equal(pointer.length, 16);
    assert.equal(pointer.toString('latin1', 0, 4), '_MP_');
    assert.equal(pointer.readUInt32LE(4), 0xf0000);
    assert.deepEqual([pointer[8], pointer[9]], [1, 4], 'one paragraph, version 1.4');
    assert.equal(sum(pointer), 0);
    assert.equal(LowMemory.mpPointer % 16, 0);
  });

  it('fits its space with the most processors', () => {
    assert(
      LowMemory.mpTable + mpTable(MAX_CPUS, virtioWindows(MAX_VIRTIO_DEVICES)).length <= LowMemory.biosEnd,
    );
  });

  for (const cpus of [1, 2, MAX_CPUS]) {
    it(`lists ${cpus} processors, with the first as the boot processor`, () => {
      const processors = mpEntries(mpTable(cpus, [])).filter((entry) => entry[0] === 0);
      assert.deepEqual(
        processors.map((entry) => [entry[1], entry[3]]),
        Array.from({ length: cpus }, (_, id) => [id, id === 0 ? 3 : 1]),
      );
    });
  }

  it('connects the ISA interrupts to the IOAPIC, the timer to pin 2', () => {
    const entries = mpEntries(mpTable(3, []));
    assert.deepEqual(
      entries.filter((entry) => entry[0] === 1).map((entry) => entry.toString('latin1', 2)),
      ['ISA   '],
    );
    const ioapics = entries.filter((entry) => entry[0] === 2);
    assert.deepEqual(
      ioapics.map((entry) => [entry[1], entry[3], entry.readUInt32LE(4)]),
      [[3, 1, 0xfec0_0000]],
    );
    const lines = entries.filter((entry) => entry[0] === 3);
    assert.deepEqual(
      lines.map((entry) => [entry[1], entry[5], entry[6], entry[7]]),
      [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].map((irq) => [0, irq, 3, irq === 0 ? 2 : irq]),
    );
  });

  it('lists the pins beyond the ISA interrupts that virtio devices use, edge-triggered and active high', () => {
    const pins = mpEntries(mpTable(1, virtioWindows(MAX_VIRTIO_DEVICES)))
      .filter((entry) => entry[0] === 3 && entry[7]! >= 16)
      .map((entry) => [...entry]);
    assert.deepEqual(
      pins,
      [16, 17, 18, 19, 20, 21, 22, 23].map((pin) => [3, 0, 0b0101, 0, 0, pin, 1, pin]),
    );
  });

  it('connects the 8259 to the first LINT0 and NMI to every LINT1', () => {
    const local = mpEntries(mpTable(1, [])).filter((entry) => entry[0] === 4);
    assert.deepEqual(
      local.map((entry) => [entry[1], entry[6], entry[7]]),
      [
        [3, 0, 0],
        [1, 0xff, 1],
      ],
    );
  });
});
