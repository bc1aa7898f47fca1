import assert from 'node:assert/strict';
import { BlockLocks } from '../../../../src/vmm/disk/block-locks.js';

describe('BlockLocks', () => {
  it('lets an operation wait until no block of it is held', () => {
    const locks = new BlockLocks();
    const released: string[] = [];
    const releaseLow = locks.hold(2, 4);
    const releaseHigh = locks.hold(6, 6);
    for (const [first, last] of [
      [0, 1],
      [5, 5],
      [7, 9],
    ] as const)
      assert.equal(
        locks.waitFor(first, last, () => assert.fail('it did not wait')),
        false,
      );
    const attempt = (): void => {
      if (!locks.waitFor(4, 6, attempt)) released.push('both');
    };
    attempt();
    assert(locks.waitFor(0, 2, () => released.push('low')));
    releaseLow();
    assert.deepEqual(released, ['low']);
    releaseHigh();
    assert.deepEqual(released, ['low', 'both']);
    assert.equal(
      locks.waitFor(0, 9, () => {}),
      false,
    );
  });

  it('refuses to hold a block twice', () => {
    const locks = new BlockLocks();
    locks.hold(2, 4);
    assert.throws(() => locks.hold(4, 5), /held twice/);
  });

  it('holds billions of blocks as easily as one', () => {
    const locks = new BlockLocks();
    const release = locks.hold(0, 2 ** 31);
    assert(locks.waitFor(2 ** 30, 2 ** 30, () => {}));
    release();
    assert.equal(
      locks.waitFor(2 ** 30, 2 ** 30, () => {}),
      false,
    );
  });
});
