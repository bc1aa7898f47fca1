import assert from 'node:assert/strict';
import { compareFit, type FitFinding } from '../../../../src/vmm/fit/compare.js';
import type { HostProfile } from '../../../../src/vmm/fit/host-profile.js';
import type { SnapshotNeeds, VcpuNeeds } from '../../../../src/vmm/fit/snapshot-needs.js';
import type { CpuidEntry } from '../../../../src/vmm/kvm/cpuid.js';
import { HOST_NAMES, recordedHost, savedOn, xcrsOf } from './recorded-hosts.js';

const things = (findings: readonly FitFinding[], level: FitFinding['level']): string[] =>
  findings.filter((finding) => finding.level === level).map(({ thing }) => thing);

/** Which hosts a snapshot of each host fits. */
const FITS: Record<string, readonly string[]> = {
  'amd-zen2': ['amd-zen2', 'amd-zen3', 'amd-zen4'],
  'amd-zen3': ['amd-zen3', 'amd-zen4'],
  'amd-zen4': ['amd-zen4'],
  'intel-cascade-lake': ['intel-cascade-lake', 'intel-ice-lake', 'intel-sapphire-rapids'],
  'intel-ice-lake': ['intel-ice-lake', 'intel-sapphire-rapids'],
  'intel-sapphire-rapids': ['intel-sapphire-rapids'],
  'intel-skylake-sp': ['intel-cascade-lake', 'intel-ice-lake', 'intel-sapphire-rapids', 'intel-skylake-sp'],
  'pvm-emerald-rapids': ['pvm-emerald-rapids'],
};

/** A copy of a leaf's list with some registers of one leaf changed. */
const withLeaf = (
  cpuid: readonly CpuidEntry[],
  leaf: number,
  index: number,
  change: (entry: CpuidEntry) => Partial<CpuidEntry>,
): CpuidEntry[] =>
  cpuid.map((entry) =>
    entry.function === leaf && entry.index === index ? { ...entry, ...change(entry) } : entry,
  );

const withVcpu = (needs: SnapshotNeeds, change: (vcpu: VcpuNeeds) => Partial<VcpuNeeds>): SnapshotNeeds => ({
  ...needs,
  vcpus: needs.vcpus.map((vcpu) => ({ ...vcpu, ...change(vcpu) })),
});

const without = (word: number, bit: number): number => (word & ~(1 << bit)) >>> 0;

describe('whether a snapshot fits a host', () => {
  for (const from of HOST_NAMES) {
    it(`lets a snapshot of ${from} onto ${FITS[from]?.join(', ')} and onto no other recorded host`, () => {
      const needs = savedOn(recordedHost(from));
      const fitting = HOST_NAMES.filter(
        (to) => things(compareFit(needs, recordedHost(to)), 'refuse').length === 0,
      );
      assert.deepEqual(fitting, FITS[from]);
    });

    it(`finds nothing between a snapshot of ${from} and the same host`, () => {
      assert.deepEqual(compareFit(savedOn(recordedHost(from)), recordedHost(from)), []);
    });
  }

  const host = recordedHost('intel-ice-lake');
  const needs = savedOn(host);
  const only = (changedNeeds: SnapshotNeeds, changedHost: HostProfile): FitFinding => {
    const findings = compareFit(changedNeeds, changedHost);
    assert.equal(findings.length, 1, JSON.stringify(findings));
    return findings[0]!;
  };

  it('names features as people do, from every vCPU', () => {
    const lacking = {
      ...host,
      cpuid: withLeaf(host.cpuid, 7, 0, ({ ebx, ecx }) => ({ ebx: without(ebx, 16), ecx: without(ecx, 1) })),
    };
    const { level, thing, need } = only(needs, lacking);
    assert.deepEqual([level, thing, need], ['refuse', 'processor features', 'AVX-512F, AVX-512VBMI']);
    const [first, second] = needs.vcpus;
    const secondOnly = {
      ...needs,
      vcpus: [{ ...first!, cpuid: withLeaf(first!.cpuid, 7, 0, () => ({ ebx: 0, ecx: 0 })) }, second!],
    };
    assert.equal(only(secondOnly, lacking).need, 'AVX-512F, AVX-512VBMI');
  });

  it('names a bit that has no name by its leaf and number', () => {
    const strange = withVcpu(needs, ({ cpuid }) => ({
      cpuid: withLeaf(cpuid, 7, 1, ({ eax }) => ({ eax: (eax | (1 << 31)) >>> 0 })),
    }));
    assert.equal(only(strange, host).need, 'CPUID leaf 0x7.1 EAX bit 31');
  });

  it('ignores bits that change while a guest runs, and bits of the topology', () => {
    const ran = withVcpu(needs, ({ cpuid }) => ({
      cpuid: withLeaf(
        withLeaf(cpuid, 1, 0, ({ ecx, edx }) => ({
          ecx: (ecx | (1 << 27)) >>> 0,
          edx: (edx | (1 << 28)) >>> 0,
        })),
        7,
        0,
        ({ ecx }) => ({ ecx: (ecx | (1 << 4)) >>> 0 }),
      ),
    }));
    assert.deepEqual(compareFit(ran, host), []);
  });

  it('refuses features of KVM that the host lacks', () => {
    const older = {
      ...host,
      cpuid: withLeaf(host.cpuid, 0x4000_0001, 0, ({ eax }) => ({ eax: without(eax, 14) })),
    };
    const { level, thing, need } = only(needs, older);
    assert.deepEqual(
      [level, thing, need],
      ['refuse', 'features of KVM', 'KVM: async page faults by interrupt'],
    );
  });

  it('refuses another vendor, whichever features it has', () => {
    const other = {
      ...host,
      cpuid: withLeaf(host.cpuid, 0, 0, () => ({ ebx: 0x68747541, ecx: 0x444d4163, edx: 0x69746e65 })),
    };
    const { level, need, have } = only(needs, other);
    assert.deepEqual([level, need, have], ['refuse', 'GenuineIntel', 'AuthenticAMD']);
  });

  it('refuses a state that is enabled in XCR0 and that the host cannot save', () => {
    const enabled = withVcpu(needs, () => ({ xcrs: xcrsOf(0x602e7n) }));
    const { level, need } = only(enabled, host);
    assert.deepEqual([level, need], ['refuse', 'AMX tile configuration, AMX tiles']);
  });

  it('refuses a state that CPUID lets the guest enable later', () => {
    const may = withVcpu(needs, ({ cpuid }) => ({
      cpuid: withLeaf(cpuid, 0xd, 0, ({ eax }) => ({ eax: eax | 0x60000 })),
      xcrs: xcrsOf(1n),
    }));
    assert.equal(only(may, host).need, 'AMX tile configuration, AMX tiles');
    const supervisor = withVcpu(needs, ({ cpuid }) => ({
      cpuid: withLeaf(cpuid, 0xd, 1, ({ ecx }) => ({ ecx: ecx | 0x1800 })),
    }));
    assert.equal(only(supervisor, host).need, 'CET user, CET supervisor');
  });

  it('reads at most 16 extended control registers, however many the snapshot claims', () => {
    const claims = withVcpu(needs, () => ({ xcrs: new Uint8Array(392).fill(0xff) }));
    assert.deepEqual(compareFit(claims, host), []);
  });

  it('refuses a larger XSAVE area', () => {
    const larger = withVcpu(needs, () => ({ xsave: new Uint8Array(11_008) }));
    assert.equal(only(larger, host).need, '11008 bytes');
  });

  it('refuses a host with fewer physical address bits, and warns of more', () => {
    const bits = (count: number): HostProfile => ({
      ...host,
      cpuid: withLeaf(host.cpuid, 0x8000_0008, 0, ({ eax }) => ({ eax: (eax & ~0xff) | count })),
    });
    assert.deepEqual([only(needs, bits(39)).level, only(needs, bits(39)).have], ['refuse', '39 bits']);
    assert.equal(only(needs, bits(52)).level, 'warn');
  });

  it('refuses another TSC rate only where KVM cannot scale it, with a tolerance of 250 ppm', () => {
    const rate = (tscKhz: number): HostProfile => ({ ...host, tscKhz, tscControl: false });
    assert.deepEqual(compareFit(needs, rate(Math.round(host.tscKhz * 1.00024))), []);
    const { level, need, have } = only(needs, rate(2_900_000));
    assert.deepEqual([level, need, have], ['refuse', '2294.6 MHz', '2900 MHz and cannot scale it']);
    assert.deepEqual(compareFit(needs, { ...rate(2_900_000), tscControl: true }), []);
    assert.equal(only(needs, rate(Math.round(host.tscKhz * 1.00026))).thing, 'TSC rate');
  });

  it('refuses MSRs that the host cannot set, unless they are 0', () => {
    const extra = (value: bigint) =>
      withVcpu(needs, ({ msrs }) => ({ msrs: [...msrs, { index: 0x1c4, value }] }));
    assert.equal(only(extra(1n), host).need, '0x1c4 (IA32_XFD)');
    assert.deepEqual(compareFit(extra(0n), host), []);
  });

  it('lists a bounded number of things, whatever a snapshot claims', () => {
    const [vcpu] = needs.vcpus;
    const msrs = Array.from({ length: 1000 }, (_, i) => ({ index: 0x1000_0000 + i, value: 1n }));
    const { need } = only({ ...needs, vcpus: [{ ...vcpu!, msrs }] }, host);
    assert.match(need, /0x10000095 and 850 more$/);
  });

  it('refuses a host that lacks an immunity on which the guest relies', () => {
    const weaker = {
      ...host,
      featureMsrs: host.featureMsrs.map((msr) => ({ ...msr, value: msr.value & ~1n })),
    };
    const { level, thing, need } = only(needs, weaker);
    assert.deepEqual([level, thing, need], ['refuse', '0x10a (IA32_ARCH_CAPABILITIES) bits', 'RDCL_NO']);
    // A guest that cannot read the MSR does not rely on it.
    const blind = withVcpu(needs, ({ cpuid }) => ({
      cpuid: withLeaf(cpuid, 7, 0, ({ edx }) => ({ edx: without(edx, 29) })),
    }));
    assert.deepEqual(compareFit(blind, weaker), []);
  });

  it('refuses fewer performance counters', () => {
    const fewer = { ...host, cpuid: withLeaf(host.cpuid, 0xa, 0, () => ({ eax: 0, edx: 0 })) };
    assert.equal(only(needs, fewer).have, 'version 0 with 0 general and 0 fixed counters');
  });

  it('refuses more vCPUs and more memory than the host can have', () => {
    assert.equal(only({ ...needs, cpus: 2000 }, host).thing, 'vCPUs');
    assert.equal(only({ ...needs, memoryBytes: 2 ** 45 }, host).thing, 'memory');
  });

  it('refuses a PVM host for a guest that booted on hardware virtualization, and warns of the reverse', () => {
    const pvm = { ...host, kvm: 'pvm' } as const;
    assert.match(only(needs, pvm).have, /^PVM, /);
    const fromPvm = { ...needs, savedOn: { ...needs.savedOn, kvm: 'pvm' } } as const;
    assert.equal(only(fromPvm, host).level, 'warn');
    assert.deepEqual(compareFit(fromPvm, pvm), []);
  });

  it('warns of another model, microcode or kernel', () => {
    const model = { ...host, cpuid: withLeaf(host.cpuid, 1, 0, () => ({ eax: 0x606c1 })) };
    assert.deepEqual(
      [only(needs, model).level, only(needs, model).have],
      ['warn', 'family 6, model 108, stepping 1'],
    );
    assert.deepEqual(things(compareFit(needs, { ...host, microcode: '0x1', kernel: '7.0.0' }), 'warn'), [
      'microcode',
      'kernel',
    ]);
  });

  it('compares a snapshot that does not tell where it was saved', () => {
    const savedOnNothing = { ...needs, savedOn: { kvm: 'unknown', kernel: null, microcode: null } } as const;
    assert.deepEqual(compareFit(savedOnNothing, host), []);
    assert.deepEqual(things(compareFit(savedOnNothing, recordedHost('intel-skylake-sp')), 'refuse'), [
      'processor features',
      'features of KVM',
      'model-specific registers',
      '0x10a (IA32_ARCH_CAPABILITIES) bits',
    ]);
  });
});
