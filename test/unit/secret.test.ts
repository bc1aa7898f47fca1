import assert from 'node:assert/strict';
import { isSameSecret, newSecret } from '../../src/secret.js';

describe('a secret', () => {
  it('is new each time, and is the same as itself alone', () => {
    const secrets = Array.from({ length: 100 }, newSecret);
    assert.equal(new Set(secrets).size, 100);
    assert(secrets.every((secret) => /^[\w-]{43}$/.test(secret)));
    const [secret] = secrets as [string];
    assert(isSameSecret(secret, `${secret}`));
    for (const other of ['', secret.slice(0, -1), `${secret}x`, secrets[1]!])
      assert(!isSameSecret(secret, other));
  });
});
