import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { asLivesnapError, ERROR_CODES, LivesnapError, SystemError } from '../../src/errors.js';
import { projectRoot } from '../../src/native/addon.js';

describe('errors', () => {
  it('are described in docs/errors.md: every code with its exit status, and no other', () => {
    const text = readFileSync(join(projectRoot, 'docs/errors.md'), 'utf8');
    const described = [...text.matchAll(/^\| `([A-Z_]+)` \| (\d) \| (.+) \| (.+) \|$/gm)].map((row) => [
      row[1],
      Number(row[2]),
    ]);
    assert.deepEqual(described.sort(), Object.entries(ERROR_CODES).sort());
  });

  it('have an exit status, and convert to JSON', () => {
    const error = new LivesnapError('AMBIGUOUS', 'two begin so', { hint: 'Give more.' });
    assert.equal(error.exitStatus, 2);
    assert.equal(
      JSON.stringify({ error }),
      '{"error":{"code":"AMBIGUOUS","message":"two begin so","hint":"Give more."}}',
    );
    assert.equal(new LivesnapError('USAGE', 'no').toJSON().hint, null);
  });

  it('are known when another bundle made them, whose class is another one', async () => {
    const again = `${new URL('../../src/errors.js', import.meta.url).href}?again`;
    const other = (await import(again)) as typeof import('../../src/errors.js');
    assert.notEqual(other.LivesnapError, LivesnapError);
    const error = new other.LivesnapError('USAGE', 'no', { hint: 'Do.' });
    assert.ok(error instanceof LivesnapError);
    assert.equal(asLivesnapError(error), error);
    assert.ok(new other.SystemError('write', 1, 'EIO', 'no') instanceof LivesnapError);
    assert.ok(!(error instanceof SystemError));
    for (const value of [new Error('x'), null, undefined, 'x', { code: 'USAGE' }])
      assert.ok(!(value instanceof LivesnapError));
  });

  it('keep what is damaged on their way through JSON', () => {
    const damage = {
      ...{ file: 'packs/1', offset: 32, snapshot: 'a', region: 'disk1' },
      ...{ fromBytes: 0, toBytes: 4096 },
    };
    const error = new LivesnapError('DAMAGED', 'it is', { damage });
    assert.deepEqual(LivesnapError.fromJSON(JSON.parse(JSON.stringify(error))), error);
    assert.deepEqual(LivesnapError.fromJSON(error.toJSON()).damage, damage);
    assert.ok(!('damage' in new LivesnapError('DAMAGED', 'it is').toJSON()));
  });

  it('of system calls have a code by errno', () => {
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

  it('are made of any thrown value', () => {
    const known = new LivesnapError('USAGE', 'no');
    assert.equal(asLivesnapError(known, 'a hint'), known);
    const bug = new TypeError('x is not a function');
    const internal = asLivesnapError(bug, 'See the log.');
    assert.deepEqual(internal.toJSON(), {
      code: 'SYSTEM',
      message: 'internal error: x is not a function',
      hint: 'See the log.',
    });
    assert.equal(internal.cause, bug);
    for (const thrown of ['text', undefined, null, 7])
      assert.equal(asLivesnapError(thrown).message, `internal error: ${thrown}`);
    const noDirectory = Object.assign(new Error('ENOENT'), { syscall: 'uv_cwd' });
    assert.equal(asLivesnapError(noDirectory).code, 'NO_SUCH_FILE');
  });
});
