import assert from 'node:assert/strict';
import { LivesnapError } from '../../../../src/errors.js';
import { decodeProfile, encodeProfile } from '../../../../src/vmm/fit/host-profile.js';
import { HOST_NAMES, recordedHost } from './recorded-hosts.js';

describe('the profile of a host', () => {
  const host = recordedHost('intel-ice-lake');
  const data = (): Record<string, unknown> => JSON.parse(JSON.stringify(encodeProfile(host)));

  for (const name of HOST_NAMES)
    it(`of ${name} is the same after it was encoded and decoded`, () => {
      const profile = recordedHost(name);
      assert.deepEqual(decodeProfile(JSON.parse(JSON.stringify(encodeProfile(profile))), 'x'), profile);
    });

  const refuses = (change: Record<string, unknown>, message: RegExp): void => {
    assert.throws(
      () => decodeProfile({ ...data(), ...change }, 'FILE'),
      (error) => error instanceof LivesnapError && error.code === 'USAGE' && message.test(error.message),
    );
  };

  it('is refused with a field that is missing, of another type or out of range', () => {
    for (const field of Object.keys(data()))
      refuses({ [field]: undefined }, new RegExp(`^FILE does not describe a host: ${field} is `));
    refuses({ kvm: 'xen' }, /kvm is not vmx/);
    refuses({ tscKhz: 0 }, /tscKhz is not an integer/);
    refuses({ kernel: 'x'.repeat(201) }, /kernel is longer/);
    refuses({ cpuid: ['00000001.0 0 0 0 0'] }, /cpuid\[0\] is not a CPUID leaf/);
    refuses({ cpuid: Array(257).fill('00000001.0 00000000 00000000 00000000 00000000') }, /257 items/);
    refuses({ msrs: ['0x123456789'] }, /msrs\[0\] is not an MSR number/);
    refuses({ msrs: Array(1025).fill('0x1') }, /1025 items/);
    refuses({ featureMsrs: [{ index: '0x10a', value: 1 }] }, /value is not an MSR value/);
  });

  it('is refused if it is no object, or of a newer version', () => {
    for (const value of [null, 'x', [], 7])
      assert.throws(() => decodeProfile(value, 'FILE'), /FILE does not describe a host/);
    assert.throws(
      () => decodeProfile({ ...data(), version: 2 }, 'FILE'),
      (error) => error instanceof LivesnapError && error.code === 'NEWER_FORMAT',
    );
  });

  it('may have fields that this version does not know', () => {
    assert.deepEqual(decodeProfile({ ...data(), colour: 'blue' }, 'x'), host);
  });
});
