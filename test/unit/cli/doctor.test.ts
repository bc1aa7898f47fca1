import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { judge } from '../../../src/cli/doctor.js';
import { projectRoot } from '../../../src/native/project-root.js';

describe('doctor', () => {
  it('requires a Node that the package supports', () => {
    for (const version of ['20.12.0', '20.20.2', '22.14.0', '23.6.0', '24.0.0', '26.1.0'])
      assert.equal(judge.checkNode(version).ok, true, version);
    for (const version of ['18.20.0', '20.11.9', '21.7.0', '22.13.9', '23.5.0']) {
      const { ok, message, remedy } = judge.checkNode(version);
      assert.deepEqual([ok, message], [false, `livesnap does not work in Node ${version}`]);
      assert.match(remedy!, /22\.14/);
    }
    const { engines } = JSON.parse(readFileSync(join(projectRoot, 'package.json'), 'utf8'));
    assert.equal(engines.node, '^20.12.0 || ^22.14.0 || >=23.6.0');
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
