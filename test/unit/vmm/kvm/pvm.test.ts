import assert from 'node:assert/strict';
import { pvmCmdline } from '../../../../src/vmm/kvm/pvm.js';

describe('pvmCmdline', () => {
  it('adds the options that are missing, and keeps the given ones', () => {
    const line = pvmCmdline('console=ttyS0 mitigations=auto noxsave');
    assert.match(line, /^console=ttyS0 mitigations=auto noxsave /);
    assert.equal(line.match(/mitigations=/g)!.length, 1);
    assert.equal(line.match(/noxsave/g)!.length, 1);
    assert.match(line, / rodata=off/);
    assert.match(line, / clearcpuid=/);
    assert.equal(pvmCmdline(line), line);
  });
});
