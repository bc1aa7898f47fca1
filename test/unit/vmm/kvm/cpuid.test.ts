import assert from 'node:assert/strict';
import { type CpuidEntry, decodeCpuid, encodeCpuid, guestCpuid } from '../../../../src/vmm/kvm/cpuid.js';

const entry = (fn: number, index: number, regs: Partial<CpuidEntry> = {}): CpuidEntry => ({
  function: fn,
  index,
  flags: 0,
  eax: 0,
  ebx: 0,
  ecx: 0,
  edx: 0,
  ...regs,
});

const supported = [
  entry(1, 0, { ebx: 0x1234_5678, ecx: 0x7fff_ffff, edx: 0xefff_ffff }),
  entry(7, 0, { ebx: 0xffff_ffff, ecx: 0xffff_ffff, edx: 0xffff_ffff }),
  entry(0xb, 0),
  entry(0xb, 1),
  entry(0xd, 0, { eax: 7 }),
  entry(0x4000_0001, 0, { eax: 0xffff_ffff }),
];

const find = (entries: readonly CpuidEntry[], fn: number, index = 0): CpuidEntry =>
  entries.find((e) => e.function === fn && e.index === index)!;

describe('guestCpuid', () => {
  it('has the APIC ID of each vCPU and the topology of the machine', () => {
    const host = { kind: 'vmx', tscDeadlineTimer: true } as const;
    const entries = guestCpuid(supported, 3, 4, host);
    assert.equal(find(entries, 1).ebx, 0x0304_5678);
    assert.notEqual(find(entries, 1).edx & (1 << 28), 0, 'HTT');
    assert.equal(find(entries, 0xb, 0).edx, 3);
    assert.deepEqual(
      [0, 1, 2].map((index) => find(entries, 0xb, index).ebx),
      [1, 4, 0],
    );
    assert.equal(find(entries, 0xb, 1).eax, 2, 'bits of APIC id below the socket');
    assert.equal(entries.filter((e) => e.function === 0xb).length, 3);
    assert.equal(find(guestCpuid(supported, 0, 1, host), 1).edx & (1 << 28), 0, 'no HTT with one vCPU');
  });

  it('has the hypervisor bit, and the deadline timer only where KVM has it', () => {
    const bits = (tscDeadlineTimer: boolean): number =>
      find(guestCpuid(supported, 0, 1, { kind: 'svm', tscDeadlineTimer }), 1).ecx;
    assert.equal(bits(true) >>> 31, 1);
    assert.equal((bits(true) >>> 24) & 1, 1);
    assert.equal((bits(false) >>> 24) & 1, 0);
  });

  it('clears the features that the emulator lacks, for PVM guests only', () => {
    const leaf = (kind: 'pvm' | 'vmx', fn: number): CpuidEntry =>
      find(guestCpuid(supported, 0, 1, { kind, tscDeadlineTimer: true }), fn);
    for (const popcntOrXsave of [23, 26]) {
      assert.equal((leaf('pvm', 1).ecx >>> popcntOrXsave) & 1, 0);
      assert.equal((leaf('vmx', 1).ecx >>> popcntOrXsave) & 1, 1);
    }
    assert.equal((leaf('pvm', 7).ebx >>> 9) & 1, 0, 'ERMS');
    assert.equal(leaf('pvm', 0xd).eax, 0);
    assert.equal(leaf('vmx', 0xd).eax, 7);
    assert.equal(leaf('pvm', 0x4000_0001).eax, 0xffff_d77f, 'no feature of KVM that uses hypercalls');
    assert.equal(leaf('vmx', 0x4000_0001).eax, 0xffff_ffff);
  });

  it('clears VMX and SVM, and keeps the bits next to them', () => {
    const nesting = [
      entry(1, 0, { ecx: 0xffff_ffff }),
      entry(0x8000_0001, 0, { eax: 1, ebx: 2, ecx: 0xffff_ffff, edx: 3 }),
      entry(0x8000_000a, 0, { eax: 1, ebx: 8, ecx: 0, edx: 0xffff_ffff }),
    ];
    for (const kind of ['vmx', 'svm', 'pvm', 'unknown'] as const) {
      const entries = guestCpuid(nesting, 0, 1, { kind, tscDeadlineTimer: true });
      assert.equal((find(entries, 1).ecx >>> 5) & 1, 0, 'VMX');
      assert.deepEqual(find(entries, 0x8000_0001), { ...nesting[1]!, ecx: 0xffff_fffb });
      assert.deepEqual(find(entries, 0x8000_000a), entry(0x8000_000a, 0), 'the SVM leaf');
    }
    const { ecx } = find(guestCpuid(nesting, 0, 1, { kind: 'vmx', tscDeadlineTimer: true }), 1);
    assert.equal(ecx, 0xffff_ffdf);
  });

  it('has entries that survive encoding and decoding', () => {
    assert.deepEqual(decodeCpuid(encodeCpuid(supported)), supported);
  });
});
