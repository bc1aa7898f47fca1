import assert from 'node:assert/strict';
import { LivesnapError } from '../../../../src/errors.js';
import { requireFit } from '../../../../src/vmm/fit/snapshot-fit.js';
import { describeSavingHost, readSavedHost } from '../../../../src/vmm/fit/snapshot-needs.js';
import { recordedHost, savedOn } from './recorded-hosts.js';

describe('the host in the description of a snapshot', () => {
  it('is read back as it was described', () => {
    const described = describeSavingHost(recordedHost('amd-zen3'), { hostname: 'a', arch: 'x64' });
    assert.deepEqual(readSavedHost(JSON.parse(JSON.stringify(described))), {
      kvm: 'svm',
      kernel: '6.8.0-45-generic',
      microcode: '0xa0011d5',
    });
    assert(JSON.stringify(described).length < 1000, 'show prints it');
  });

  it('may be that of an earlier version, of a newer one, or missing', () => {
    const earlier = { kvm: 'pvm', hostname: 'a', kernel: '6.1', arch: 'x64' };
    assert.deepEqual(readSavedHost(earlier), { kvm: 'pvm', kernel: '6.1', microcode: null });
    assert.equal(readSavedHost({ kvm: 'tdx', more: [] }).kvm, 'unknown');
    assert.deepEqual(readSavedHost(null), { kvm: 'unknown', kernel: null, microcode: null });
  });

  it('is refused if it is not what a host can be', () => {
    const escapes = ['6.8\x1b[2J', '6.8\nerror: all is lost', '\u202e8.6'].flatMap((kernel) => [
      { kernel },
      { microcode: kernel },
    ]);
    for (const host of [
      ...escapes,
      [],
      7,
      { kernel: 7 },
      { microcode: {} },
      { kernel: 'x'.repeat(1000) },
      { kvm: null },
    ])
      assert.throws(
        () => readSavedHost(host),
        (error) => error instanceof LivesnapError && error.code === 'BAD_STATE' && /host/.test(error.message),
      );
  });
});

describe('a restore', () => {
  const host = recordedHost('intel-ice-lake');
  const ID = '0123456789abcdef0123456789abcdef';

  it('is refused with everything that does not fit, and what would help', () => {
    const other = { ...host, kvm: 'pvm', tscKhz: 1_000_000, tscControl: false } as const;
    assert.throws(
      () => requireFit(ID, savedOn(host), other),
      (error) => {
        assert(error instanceof LivesnapError);
        assert.deepEqual([error.code, error.exitStatus], ['HOST_LACKS', 5]);
        assert.match(
          error.message,
          /^snapshot 0123456789ab does not fit this host\. kind of KVM: .*; TSC rate: /,
        );
        assert.match(error.hint!, /hardware virtualization\. Use a host whose TSC/);
        return true;
      },
    );
  });

  it('gives warnings as notices', () => {
    const notices = requireFit(ID, savedOn(host), { ...host, kernel: '7.0' });
    assert.deepEqual(notices, [
      'the kernel differs from the host that saved the snapshot: 6.8.0-45-generic there, 7.0 here. Usually nothing: kernels keep the state of guests compatible.',
    ]);
  });
});
