import assert from 'node:assert/strict';
import { chooseGuest, type DemoHost, probeGuest } from '../../../src/cli/demo-guest.js';

describe('the guest of the demo', () => {
  const NEWEST = '/boot/vmlinuz-6.9.1';
  const RUNNING = '/boot/vmlinuz-6.1.0-28-amd64';
  const host = (facts: Partial<DemoHost>): DemoHost => ({
    kvm: 'svm',
    release: '6.1.0-28-amd64',
    kernels: () => [NEWEST, RUNNING],
    isReadable: () => true,
    ...facts,
  });
  const whyProbe = (facts: Partial<DemoHost>): string => {
    const guest = chooseGuest(host(facts));
    assert(guest.kind === 'probe');
    assert.match(guest.kernel, /\/probe\.bzImage$/);
    return guest.why;
  };

  it('is the kernel that runs, on a host with VMX or SVM', () => {
    for (const kvm of ['vmx', 'svm'] as const) {
      const guest = chooseGuest(host({ kvm }));
      assert(guest.kind === 'linux');
      assert.equal(guest.kernel, RUNNING);
      assert.match(guest.program, /\/demo-init$/);
    }
  });

  it('is the newest kernel that can be read, if the one that runs is not there or cannot be read', () => {
    const kernelOf = (facts: Partial<DemoHost>): string => chooseGuest(host(facts)).kernel;
    assert.equal(kernelOf({ release: '6.5.0' }), NEWEST);
    assert.equal(kernelOf({ isReadable: (file) => file !== RUNNING }), NEWEST);
  });

  it('is the probe on other hosts, with one sentence why', () => {
    for (const kvm of ['pvm', 'unknown'] as const)
      assert.match(whyProbe({ kvm }), /^Stock kernels need KVM with VMX or SVM, .*\.$/);
    assert.equal(whyProbe({ kernels: () => [] }), '/boot has no kernel, so this is the bundled guest.');
    assert.match(
      whyProbe({ isReadable: () => false }),
      /^\/boot\/vmlinuz-6\.1\S* cannot be read by this user/,
    );
    assert.match(whyProbe({ isReadable: (file) => file.startsWith('/boot') }), /has not been built/);
    assert.match(probeGuest('It did not boot').why, /^It did not boot, so/);
  });

  it('does not look for kernels where they would not run', () => {
    const kernels = (): string[] => assert.fail('looked for kernels');
    chooseGuest(host({ kvm: 'pvm', kernels }));
  });
});
