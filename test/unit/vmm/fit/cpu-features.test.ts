import assert from 'node:assert/strict';
import {
  cpuidWord,
  FEATURE_WORDS,
  featureNames,
  modelOf,
  physicalAddressBits,
  stateNames,
  vendorOf,
  xcr0Mask,
} from '../../../../src/vmm/fit/cpu-features.js';
import { recordedHost } from './recorded-hosts.js';

const namesOf = (host: string): string[] => {
  const { cpuid } = recordedHost(host);
  return FEATURE_WORDS.flatMap((word) =>
    featureNames(word, cpuidWord(cpuid, word.function, word.index, word.register) & word.mask),
  );
};

describe('the features of a processor', () => {
  it('have their common names', () => {
    const names = namesOf('intel-sapphire-rapids');
    for (const name of [
      'SSE4.2 CMPXCHG16B POPCNT AES-NI AVX F16C RDRAND FMA AVX2 BMI1 BMI2 ADX SHA GFNI VAES SERIALIZE LA57 LZCNT LAHF',
      'AVX-512F AVX-512DQ AVX-512BW AVX-512VL AVX-512VBMI AVX-512VNNI AVX-512BF16 AVX-512FP16 AVX-VNNI AMX-TILE AMX-INT8',
      'XSAVES FSRM MOVDIR64B WAITPKG RDPID PKU NX RDTSCP ARCH_CAPABILITIES SSBD TSC_ADJUST',
    ].flatMap((line) => line.split(' ')))
      assert(names.includes(name), `${name} is among ${names.join(', ')}`);
    const amd = namesOf('amd-zen4');
    for (const name of ['SSE4A', 'CLZERO', 'XSAVEERPTR', 'TOPOEXT', 'AUTO_IBRS', 'AVX-512F'])
      assert(amd.includes(name), `${name} is among ${amd.join(', ')}`);
    assert(!amd.includes('AMX-TILE'));
  });

  it('each have one name, and a name only where the bit counts', () => {
    for (const { names, mask } of FEATURE_WORDS)
      for (const bit of Object.keys(names)) assert.equal((mask >>> Number(bit)) & 1, 1, names[Number(bit)]);
    const all = FEATURE_WORDS.flatMap(({ names }) => Object.values(names));
    assert.equal(new Set(all).size, all.length);
  });

  it('include vendor, model, address width and states', () => {
    const { cpuid } = recordedHost('amd-zen3');
    assert.equal(vendorOf(cpuid), 'AuthenticAMD');
    assert.deepEqual(modelOf(cpuid), { family: 25, model: 1, stepping: 1 });
    assert.deepEqual(modelOf(recordedHost('intel-sapphire-rapids').cpuid), {
      family: 6,
      model: 143,
      stepping: 8,
    });
    assert.equal(physicalAddressBits(cpuid), 48);
    assert.deepEqual(stateNames(xcr0Mask(cpuid)), ['x87', 'SSE', 'AVX', 'PKRU']);
    assert.deepEqual(stateNames(1n << 63n), ['state component 63']);
  });

  it('show no unprintable byte of a vendor', () => {
    const evil = [{ function: 0, index: 0, flags: 0, eax: 0, ebx: 0x1b5d0a41, ecx: 0xffffffff, edx: 0 }];
    assert.equal(vendorOf(evil), 'A.].........');
  });
});
