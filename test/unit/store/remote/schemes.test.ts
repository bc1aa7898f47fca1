/** The registry of address schemes. */
import assert from 'node:assert/strict';
import { schemeOf } from '../../../../src/store/remote/address.js';
import { openRemote, SCHEMES } from '../../../../src/store/remote/schemes.js';

describe('the address schemes', () => {
  for (const [name, { example, receives }] of Object.entries(SCHEMES))
    it(`include ${name}, which accepts its own example and ${receives ? 'allows' : 'refuses'} copies to it`, () => {
      assert.equal(schemeOf(example), name);
      openRemote(name, example, 'from');
      if (receives) openRemote(name, example, 'to');
      else
        assert.throws(() => openRemote(name, example, 'to'), {
          code: 'USAGE',
          message: /cannot copy to/,
        });
      const cut = `${example}#x`;
      assert.throws(
        () => openRemote(name, cut, 'from'),
        { code: 'USAGE', hint: /%23/ },
        'no part of the address is dropped',
      );
    });

  it('exclude all others, with an example of each known one', () => {
    for (const name of ['sftp', 's3', 'file', 'constructor'])
      assert.throws(
        () => openRemote(name, `${name}://host/dir`, 'from'),
        ({ code, message, hint }: { code: string; message: string; hint: string }) => {
          assert.deepEqual([code, message], ['USAGE', `unsupported address scheme ${name}://`]);
          for (const { example } of Object.values(SCHEMES)) assert.ok(hint.includes(example), hint);
          return true;
        },
      );
  });
});
