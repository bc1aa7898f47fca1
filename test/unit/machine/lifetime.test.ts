import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { Lifetime } from '../../../src/machine/lifetime.js';

describe('Lifetime', () => {
  it('expires once, and has no end afterwards', async () => {
    let expired = 0;
    const lifetime = await new Promise<Lifetime>((resolve) => {
      const made = new Lifetime(() => {
        expired++;
        resolve(made);
      });
      made.set(5);
      assert.notEqual(made.endsAt, null);
    });
    assert.equal(lifetime.endsAt, null);
    await sleep(20);
    assert.equal(expired, 1);
  });

  it('is replaced by a later one, and ended by null', async () => {
    let expired = 0;
    const lifetime = new Lifetime(() => expired++);
    lifetime.set(5);
    lifetime.set(3_600_000);
    await sleep(20);
    assert.equal(expired, 0);
    lifetime.set(5);
    lifetime.clear();
    await sleep(20);
    assert.equal(expired, 0);
  });
});
