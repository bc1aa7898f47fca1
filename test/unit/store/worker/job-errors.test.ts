import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { LivesnapError, SystemError } from '../../../../src/errors.js';
import { DamageError } from '../../../../src/store/disk/damage.js';
import { storeError } from '../../../../src/store/disk/store-error.js';
import { fromJobError, toJobError, workerFailure } from '../../../../src/store/worker/job-errors.js';

/** The error as it arrives from another thread. */
const sent = (error: unknown): Error => fromJobError(structuredClone(toJobError(error)));

function thrownBy(work: () => unknown): Error {
  try {
    work();
  } catch (error) {
    return error as Error;
  }
  return assert.fail('nothing was thrown');
}

describe('an error of a page Worker', () => {
  it('keeps file, offset, reason and region of damage', () => {
    const damage = new DamageError('packs/1', 32, 'it is torn');
    const named = damage.in('a', { region: 'disk1', fromBytes: 0, toBytes: 4096 });
    for (const before of [damage, named]) {
      const error = sent(before);
      assert.ok(error instanceof DamageError);
      assert.deepEqual([error.file, error.offset, error.why], ['packs/1', 32, 'it is torn']);
      assert.deepEqual(error.toJSON(), before.toJSON());
    }
  });

  it('keeps code, message and hint of a LivesnapError', () => {
    const error = new LivesnapError('REMOTE_FAILED', 'a bad page', { hint: 'Copy again.' });
    const arrived = sent(error);
    assert.ok(arrived instanceof LivesnapError);
    assert.deepEqual(arrived.toJSON(), error.toJSON());
  });

  it('is an error of the store if a system call in the store failed', () => {
    const arrived = sent(new SystemError('write', 28, 'ENOSPC', 'No space left on device'));
    assert.ok(arrived instanceof SystemError);
    assert.deepEqual([arrived.syscall, arrived.errno, arrived.errnoName], ['write', 28, 'ENOSPC']);
    assert.equal(arrived.message, 'write: No space left on device');
    assert.match((storeError('/s', arrived) as Error).message, /the store \/s/);
  });

  it('keeps code, call and path of an error of Node, and the stack', () => {
    const error = thrownBy(() => statSync('/none/at/all')) as NodeJS.ErrnoException;
    const arrived = sent(error) as NodeJS.ErrnoException;
    assert.deepEqual(
      [arrived.code, arrived.syscall, arrived.path, arrived.stack],
      ['ENOENT', 'stat', '/none/at/all', error.stack],
    );
  });

  it('that ended the Worker is SYSTEM with its message, or the LivesnapError that it was', () => {
    const bug = workerFailure('no such page', new TypeError('no such page'));
    assert.deepEqual(
      [bug.code, bug.message],
      ['SYSTEM', 'a worker thread of the store failed: no such page'],
    );
    const known = new LivesnapError('NO_SPACE', 'the disk is full', { hint: 'Free some space.' });
    const arrived = Object.assign(new Error(known.message), { code: known.code, hint: known.hint });
    assert.deepEqual(workerFailure(known.message, arrived).toJSON(), known.toJSON());
  });
});
