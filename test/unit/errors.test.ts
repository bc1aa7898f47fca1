import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERROR_CODES, LivesnapError, SystemError } from '../../src/errors.js';
import { projectRoot } from '../../src/native/addon.js';

describe('errors', () => {
  it('docs/errors.md describes every code, with its exit status, and no other', () => {
    const text = readFileSync(join(projectRoot, 'docs/errors.md'), 'utf8');
    const described = [...text.matchAll(/^\| `([A-Z_]+)` \| (\d) \| (.+) \| (.+) \|$/gm)].map((row) => [
      row[1],
      Number(row[2]),
    ]);
    assert.deepEqual(described.sort(), Object.entries(ERROR_CODES).sort());
  });

  it('say what they are, in JSON too', () => {
    const error = new LivesnapError('AMBIGUOUS', 'two begin so', { hint: 'Give more.' });
    assert.equal(error.exitStatus, 2);
    assert.equal(
      JSON.stringify({ error }),
      '{"error":{"code":"AMBIGUOUS","message":"two begin so","hint":"Give more."}}',
    );
    assert.equal(new LivesnapError('USAGE', 'no').toJSON().hint, null);
  });

  it('of the system have the code that fits', () => {
    const codeOf = (errno: string) => new SystemError('write', 1, errno, 'no').code;
    assert.deepEqual(['ENOSPC', 'EDQUOT', 'EROFS', 'EACCES', 'EPERM', 'EIO'].map(codeOf), [
      'NO_SPACE',
      'NO_SPACE',
      'READ_ONLY',
      'NO_PERMISSION',
      'NO_PERMISSION',
      'SYSTEM',
    ]);
  });
});
