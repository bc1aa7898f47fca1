import assert from 'node:assert/strict';
import { bootGdt, bootPageTables, bootState } from '../../../../src/vmm/boot/boot-state.js';

describe('the boot state', () => {
  const state = bootState('elf', 0x100_0000);

  it('is 64-bit mode with paging and interrupts off', () => {
    assert.equal(state.rip, 0x100_0000n);
    assert.equal(state.cr0 & 0x8000_0001n, 0x8000_0001n, 'PE, PG');
    assert.equal(state.cr4, 0x20n, 'PAE');
    assert.equal(state.efer, 0x500n, 'LME, LMA');
    assert.equal(state.rflags, 2n);
  });

  it('has the descriptors of the boot protocol in the GDT and in the registers', () => {
    const gdt = bootGdt();
    assert.equal(state.gdt.limit, gdt.length - 1);
    assert.equal(gdt.readBigUInt64LE(0), 0n);
    // SDM volume 3, figures 3-8 and 5-1: flat, 4 KiB granular; code is 64-bit.
    assert.equal(gdt.readBigUInt64LE(0x10), 0x00af_9b00_0000_ffffn);
    assert.equal(gdt.readBigUInt64LE(0x18), 0x00cf_9300_0000_ffffn);
    assert.equal(state.cs.selector, 0x10);
    assert.equal(state.data.selector, 0x18);
    assert.equal(state.cs.l, 1);
  });

  it('identity-maps the first 4 GiB, and nothing else', () => {
    const tables = bootPageTables();
    const base = Number(state.cr3);
    const entry = (table: number, index: number) => tables.readBigUInt64LE(table - base + index * 8);
    const translate = (address: number): number | null => {
      const index = (shift: number) => Math.floor(address / 2 ** shift) % 512;
      const pml4e = entry(base, index(39));
      if (!(pml4e & 1n)) return null;
      const pdpte = entry(Number(pml4e & ~0xfffn), index(30));
      if (!(pdpte & 1n)) return null;
      const pde = entry(Number(pdpte & ~0xfffn), index(21));
      assert.equal(pde & 0x83n, 0x83n);
      return Number(pde & ~0xfffn) + (address % 2 ** 21);
    };
    for (let address = 0x1234; address < 2 ** 32; address += 2 ** 21)
      assert.equal(translate(address), address);
    for (const address of [2 ** 32, 2 ** 39, 2 ** 46]) assert.equal(translate(address), null);
  });
});
