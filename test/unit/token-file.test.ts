import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tokenIn } from '../../src/token-file.js';

describe('the file of the token', () => {
  let dir = '';
  let file = '';
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-token-'));
    file = join(dir, 'state', 'token');
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  it('is made with a new token, for this user alone, and read again', () => {
    const token = tokenIn(file);
    assert.match(token, /^[\w-]{43}$/);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    assert.equal(statSync(join(dir, 'state')).mode & 0o777, 0o700);
    assert.equal(readFileSync(file, 'utf8'), `${token}\n`);
    assert.equal(tokenIn(file), token);
    assert.notEqual(tokenIn(join(dir, 'other')), token);
  });

  it('is refused if others may read it, or if it is a link or has no token', () => {
    tokenIn(file);
    chmodSync(file, 0o640);
    assert.throws(() => tokenIn(file), { code: 'NO_PERMISSION' });
    chmodSync(file, 0o600);
    symlinkSync(file, join(dir, 'link'));
    assert.throws(() => tokenIn(join(dir, 'link')), { code: 'NO_PERMISSION' });
    for (const text of ['', 'short', 'x'.repeat(200), 'with space with space with space with space'])
      assert.throws(
        () => {
          writeFileSync(file, text);
          tokenIn(file);
        },
        { code: 'BAD_STATE' },
      );
    assert.throws(() => tokenIn(dir), { code: 'NO_PERMISSION' });
  });
});
