import assert from 'node:assert/strict';
import { e820, LowMemory, ramLayout } from '../../../../src/vmm/boot/memory-layout.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

describe('ramLayout', () => {
  it('makes one slot of up to 3 GiB', () => {
    assert.deepEqual(ramLayout(256 * MIB), [{ gpa: 0, sizeBytes: 256 * MIB }]);
    assert.deepEqual(ramLayout(3 * GIB), [{ gpa: 0, sizeBytes: 3 * GIB }]);
  });

  it('puts the RAM beyond 3 GiB above 4 GiB', () => {
    assert.deepEqual(ramLayout(5 * GIB), [
      { gpa: 0, sizeBytes: 3 * GIB },
      { gpa: 4 * GIB, sizeBytes: 2 * GIB },
    ]);
    assert.deepEqual(ramLayout(3 * GIB + 4096)[1], { gpa: 4 * GIB, sizeBytes: 4096 });
  });

  for (const size of [0, -4096, 4095, 4096.5, Number.NaN, 2 ** 60, MIB]) {
    it(`refuses ${size} bytes`, () => {
      assert.throws(() => ramLayout(size), {
        code: 'USAGE',
        message: /^a machine needs 2 MiB to 32 TiB of memory, not .* bytes$/,
      });
    });
  }
});

describe('ramLayout for a part of a page', () => {
  for (const size of [2 * MIB + 1, 2 * MIB + 0.5, GIB - 4095]) {
    it(`refuses ${size} bytes`, () => {
      assert.throws(() => ramLayout(size), { code: 'USAGE', message: /not a multiple of 4096/ });
    });
  }
});

describe('e820', () => {
  it('lists the RAM of a small machine without the firmware areas', () => {
    assert.deepEqual(e820(ramLayout(64 * MIB)), [
      { gpa: 0, sizeBytes: 0x9fc00, type: 1 },
      { gpa: 0x9fc00, sizeBytes: 0x400, type: 2 },
      { gpa: 0xe0000, sizeBytes: 0x20000, type: 2 },
      { gpa: 0x100000, sizeBytes: 63 * MIB, type: 1 },
      { gpa: 0xfec00000, sizeBytes: 0x1400000, type: 2 },
    ]);
  });

  for (const memory of [2 * MIB, 64 * MIB, 3 * GIB, 3 * GIB + 4096, 5 * GIB, 64 * GIB]) {
    it(`lists ${memory} bytes ascending, without overlap, and only RAM that exists`, () => {
      const layout = ramLayout(memory);
      let end = 0;
      for (const { gpa, sizeBytes, type } of e820(layout)) {
        assert(sizeBytes > 0 && gpa >= end);
        end = gpa + sizeBytes;
        if (type === 1) assert(layout.some((slot) => gpa >= slot.gpa && end <= slot.gpa + slot.sizeBytes));
      }
      const ram = e820(layout).filter(({ type }) => type === 1);
      const lost = LowMemory.biosEnd - LowMemory.ebda;
      assert.equal(
        ram.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
        memory - lost,
      );
    });
  }
});
