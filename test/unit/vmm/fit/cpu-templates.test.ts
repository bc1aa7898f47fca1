import assert from 'node:assert/strict';
import { LivesnapError } from '../../../../src/errors.js';
import { compareFit } from '../../../../src/vmm/fit/compare.js';
import { cpuidWord, FEATURE_WORDS, featureNames, xcr0Mask } from '../../../../src/vmm/fit/cpu-features.js';
import {
  applyTemplate,
  applyTemplateToMsrs,
  differences,
  requireTaken,
  requireTemplate,
} from '../../../../src/vmm/fit/cpu-templates.js';
import { type CpuidEntry, guestCpuid } from '../../../../src/vmm/kvm/cpuid.js';
import { CPU_TEMPLATES, type CpuTemplate } from '../../../../src/vmm/machine-types.js';
import { HOST_NAMES, recordedHost, savedOn } from './recorded-hosts.js';

const HARDWARE_HOSTS = HOST_NAMES.filter((name) => recordedHost(name).kvm !== 'pvm');

const guestOf = (host: string, template: CpuTemplate, memoryEnd = 2 ** 30): CpuidEntry[] => {
  const { cpuid, kvm } = recordedHost(host);
  return applyTemplate(template, guestCpuid(cpuid, 1, 4, { kind: kvm, tscDeadlineTimer: true }), memoryEnd);
};

const namesIn = (cpuid: readonly CpuidEntry[]): string[] =>
  FEATURE_WORDS.flatMap((word) =>
    featureNames(word, cpuidWord(cpuid, word.function, word.index, word.register) & word.mask),
  );

const refusedWith = (message: RegExp) => (error: unknown) =>
  error instanceof LivesnapError && error.code === 'HOST_LACKS' && message.test(error.message);

describe('a CPU template', () => {
  for (const vendor of ['intel', 'amd']) {
    const hosts = HARDWARE_HOSTS.filter((name) => name.startsWith(vendor));
    for (const template of CPU_TEMPLATES)
      it(`lets snapshots of machines with ${template} onto every recorded host of ${vendor}`, () => {
        for (const from of hosts)
          for (const to of hosts) {
            const findings = compareFit(savedOn(recordedHost(from), 2, template), recordedHost(to));
            const refused = findings.filter(({ level }) => level === 'refuse');
            assert.deepEqual(refused, [], `${from} to ${to}`);
          }
      });
  }

  it('gives programs the instructions of its level, and no others', () => {
    const of = (template: CpuTemplate) => new Set(namesIn(guestOf('intel-sapphire-rapids', template)));
    const level2 = ['SSE3', 'SSSE3', 'SSE4.1', 'SSE4.2', 'POPCNT', 'CMPXCHG16B', 'LAHF'];
    const level3 = ['AVX', 'AVX2', 'BMI1', 'BMI2', 'F16C', 'FMA', 'LZCNT', 'MOVBE', 'XSAVE'];
    const beyond = [
      'AES-NI',
      'PCLMULQDQ',
      'RDRAND',
      'SHA',
      'GFNI',
      'AVX-512F',
      'AVX-VNNI',
      'AMX-TILE',
      'PKU',
      'PDCM',
    ];
    const has = (template: CpuTemplate, names: readonly string[]) =>
      names.map((name) => of(template).has(name));
    const all = (names: readonly string[], value: boolean) => names.map(() => value);
    assert.deepEqual(has('minimal', level2), all(level2, false));
    assert.deepEqual(has('x86-64-v2', level2), all(level2, true));
    assert.deepEqual(has('x86-64-v2', level3), all(level3, false));
    assert.deepEqual(has('x86-64-v3', [...level2, ...level3]), all([...level2, ...level3], true));
    for (const template of CPU_TEMPLATES) {
      assert.deepEqual(has(template, beyond), all(beyond, false));
      const needed = ['SSE2', 'CMOV', 'long mode', 'NX', 'x2APIC', 'KVM: kvmclock', 'SSBD'];
      assert.deepEqual(has(template, needed), all(needed, true));
    }
  });

  it('clears feature bits that this version does not know', () => {
    const { cpuid } = recordedHost('intel-ice-lake');
    const strange = cpuid.map((entry) =>
      entry.function === 7 ? { ...entry, ebx: 0xffffffff, ecx: 0xffffffff, edx: 0xffffffff } : entry,
    );
    const made = applyTemplate('minimal', strange, 2 ** 30);
    const [zero, one] = made.filter((entry) => entry.function === 7);
    assert.deepEqual([zero!.ebx, zero!.ecx], [0, 0]);
    assert.deepEqual([one!.ebx, one!.ecx, one!.edx], [0, 0, 0]);
  });

  it('keeps the topology and the hypervisor bit', () => {
    const plain = guestCpuid(recordedHost('intel-ice-lake').cpuid, 1, 4, {
      kind: 'vmx',
      tscDeadlineTimer: true,
    });
    const made = applyTemplate('minimal', plain, 2 ** 30);
    assert.equal(cpuidWord(made, 1, 0, 'ebx'), cpuidWord(plain, 1, 0, 'ebx'));
    assert.equal(cpuidWord(made, 1, 0, 'ecx') >>> 31, 1);
    assert.equal((cpuidWord(made, 1, 0, 'edx') >>> 28) & 1, 1);
  });

  it('has the states of its level: AVX with x86-64-v3, and no XSAVE below', () => {
    assert.equal(xcr0Mask(guestOf('intel-ice-lake', 'x86-64-v3')), 7n);
    assert.equal(cpuidWord(guestOf('intel-ice-lake', 'x86-64-v3'), 0xd, 0, 'ecx'), 832);
    assert.equal(xcr0Mask(guestOf('intel-ice-lake', 'x86-64-v2')), 0n);
  });

  it('has 40 physical address bits, or as many as its memory needs', () => {
    const bits = (memoryEnd: number) =>
      cpuidWord(guestOf('intel-sapphire-rapids', 'minimal', memoryEnd), 0x8000_0008, 0, 'eax') & 0xff;
    assert.deepEqual([bits(2 ** 30), bits(2 ** 40), bits(2 ** 40 + 4096)], [40, 40, 41]);
  });

  it('has no performance counters', () => {
    assert.equal(cpuidWord(guestOf('intel-ice-lake', 'x86-64-v3'), 0xa, 0, 'eax'), 0);
  });

  it('masks the MSRs that tell of features, and no others', () => {
    const all = 0xffff_ffff_ffff_ffffn;
    const made = applyTemplateToMsrs(
      [0x10a, 0xce, 0x1a0, 0x345, 0x277].map((index) => ({ index, value: all })),
    );
    assert.deepEqual(
      made.map(({ value }) => value),
      [0x80004n, 0n, 0x1801n, 0n, all],
    );
  });

  it('is refused on a host that lacks a feature of its level, by name', () => {
    const host = recordedHost('intel-ice-lake');
    const old = {
      ...host,
      cpuid: host.cpuid.map((entry) => (entry.function === 7 ? { ...entry, ebx: 0 } : entry)),
    };
    requireTemplate('x86-64-v3', host);
    requireTemplate('x86-64-v2', old);
    assert.throws(
      () => requireTemplate('x86-64-v3', old),
      refusedWith(/^this host cannot give the CPU template x86-64-v3: it lacks AVX2, BMI1, BMI2$/),
    );
  });

  it('is refused on a PVM host, and for a vendor that has none', () => {
    assert.throws(
      () => requireTemplate('minimal', recordedHost('pvm-emerald-rapids')),
      refusedWith(/^a PVM host cannot give the CPU template minimal/),
    );
    const host = recordedHost('intel-ice-lake');
    const other = {
      ...host,
      cpuid: host.cpuid.map((e) => (e.function === 0 ? { ...e, ebx: 0x746e6543 } : e)),
    };
    assert.throws(
      () => requireTemplate('minimal', other),
      refusedWith(/no CPU template minimal for processors of Cent/),
    );
  });

  it('is refused when KVM keeps other values than those that were set', () => {
    const cpuid = guestOf('intel-ice-lake', 'x86-64-v2');
    const set = { cpuid, msrs: [{ index: 0x10a, value: 4n }] };
    requireTaken('x86-64-v2', set, set);
    const forced = cpuid.map((entry) =>
      entry.function === 7 && entry.index === 0 ? { ...entry, ebx: (entry.ebx | (1 << 16)) >>> 0 } : entry,
    );
    const got = { cpuid: forced, msrs: [{ index: 0x10a, value: 5n }] };
    assert.deepEqual(differences(set, got), ['AVX-512F', 'MSR 0x10a (IA32_ARCH_CAPABILITIES)']);
    assert.throws(() => requireTaken('x86-64-v2', set, got), refusedWith(/it changes AVX-512F, MSR 0x10a/));
    // OSXSAVE changes with CR4 of the guest.
    const ran = cpuid.map((entry) =>
      entry.function === 1 ? { ...entry, ecx: entry.ecx | (1 << 27) } : entry,
    );
    assert.deepEqual(differences(set, { ...set, cpuid: ran }), []);
  });
});
