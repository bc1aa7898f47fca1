import assert from 'node:assert/strict';
import { pvmCmdline } from '../../../../src/vmm/kvm/pvm.js';

describe('pvmCmdline', () => {
  it('adds the options that are missing, and keeps the given ones', () => {
    const line = pvmCmdline('console=ttyS0 mitigations=auto norandmaps');
    assert.match(line, /^console=ttyS0 mitigations=auto norandmaps /);
    assert.equal(line.match(/mitigations=/g)!.length, 1);
    assert.equal(line.match(/norandmaps/g)!.length, 1);
    assert.match(line, / rodata=off/);
    assert.match(line, / clearcpuid=/);
    assert.equal(pvmCmdline(line), line);
  });

  it('adds no word that Linux would pass to init as an argument', () => {
    // These are parameters of Linux (`__setup`, `early_param`). Others without `=` go to init.
    const known = ['norandmaps'];
    const words = pvmCmdline('').split(' ');
    assert.deepEqual(
      words.filter((word) => word !== '' && !word.includes('=') && !known.includes(word)),
      [],
    );
  });
});
