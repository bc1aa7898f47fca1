import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { judge } from '../../../src/cli/doctor.js';

describe('doctor', () => {
  it('requires Node 20.12', () => {
    assert.equal(judge.checkNode('20.12.0').ok, true);
    assert.equal(judge.checkNode('22.0.0').ok, true);
    assert.equal(judge.checkNode('20.11.9').ok, false);
    assert.match(judge.checkNode('18.20.0').remedy!, /20\.12/);
  });

  it('derives the remedy for a missing /dev/kvm from the flags of the CPU', () => {
    const flags = (text: string) => `processor : 0\nflags\t\t: fpu ${text} sse\n`;
    assert.match(judge.missingKvmRemedy(flags('vmx')), /modprobe kvm_intel/);
    assert.match(judge.missingKvmRemedy(flags('svm')), /modprobe kvm_amd/);
    assert.match(judge.missingKvmRemedy(flags('hypervisor')), /nested/);
    assert.match(judge.missingKvmRemedy(flags('vmxish')), /firmware/);
  });

  it('reports a userfaultfd that cannot serve guests as a note, with the remedy', () => {
    const missing = judge.judgeUserfaultfd(constants.errno.ENOSYS);
    assert.deepEqual([missing.ok, missing.state], [true, 'note']);
    assert.match(missing.message, /reads all of RAM .*ENOSYS/);
    assert.match(missing.remedy!, /CONFIG_USERFAULTFD/);
    assert.match(judge.judgeUserfaultfd(constants.errno.EPERM).remedy!, /unprivileged_userfaultfd=1/);
    assert.equal(judge.judgeUserfaultfd(null).state, 'ok');
  });

  it('requires available memory', () => {
    assert.equal(judge.checkMemory('MemTotal: 9 kB\nMemAvailable:   600000 kB\n').ok, true);
    assert.equal(judge.checkMemory('MemAvailable:   100000 kB\n').ok, false);
    assert.equal(judge.checkMemory('').ok, false);
  });

  it('requires free space', () => {
    assert.equal(judge.checkSpace('/', 1, 'x').ok, true);
    assert.deepEqual(judge.checkSpace('/', Number.MAX_SAFE_INTEGER, 'free some').remedy, 'free some');
  });
});
