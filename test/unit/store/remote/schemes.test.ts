/** The schemes of addresses: what is said of them is true of each. */
import assert from 'node:assert/strict';
import { schemeOf } from '../../../../src/store/remote/address.js';
import { openRemote, SCHEMES } from '../../../../src/store/remote/schemes.js';

describe('the schemes of addresses', () => {
  for (const [name, { example, receives }] of Object.entries(SCHEMES))
    it(`${name} takes its own example, and copies to it are ${receives ? 'possible' : 'refused'}`, () => {
      assert.equal(schemeOf(example), name);
      openRemote(name, example, 'from');
      if (receives) openRemote(name, example, 'to');
      else
        assert.throws(() => openRemote(name, example, 'to'), {
          code: 'USAGE',
          message: /nothing can be copied to/,
        });
      const cut = `${example}#x`;
      assert.throws(() => openRemote(name, cut, 'from'), { code: 'USAGE', hint: /%23/ }, 'it is read whole');
    });

  it('refuses one that it does not know, and names an example of each that it does', () => {
    for (const name of ['sftp', 's3', 'file', 'constructor'])
      assert.throws(
        () => openRemote(name, `${name}://host/dir`, 'from'),
        ({ code, message, hint }: { code: string; message: string; hint: string }) => {
          assert.deepEqual([code, message], ['USAGE', `livesnap does not know ${name}:// addresses`]);
          for (const { example } of Object.values(SCHEMES)) assert.ok(hint.includes(example), hint);
          return true;
        },
      );
  });
});
