import assert from 'node:assert/strict';
import { unlessAborted } from '../../src/unless-aborted.js';

describe('unlessAborted', () => {
  const never = new Promise<never>(() => {});

  it('gives what the work gives, with and without a signal', async () => {
    const { signal } = new AbortController();
    for (const each of [undefined, signal]) {
      assert.equal(await unlessAborted(each, Promise.resolve(5)), 5);
      await assert.rejects(unlessAborted(each, Promise.reject(new Error('broken'))), /broken/);
    }
  });

  it('fails with the reason of the signal, aborted before or meanwhile, though the work goes on', async () => {
    await assert.rejects(unlessAborted(AbortSignal.abort(new Error('before')), never), /before/);
    const controller = new AbortController();
    const waiting = unlessAborted(controller.signal, never);
    controller.abort(new Error('meanwhile'));
    await assert.rejects(waiting, /meanwhile/);
  });

  it('ignores work that fails afterwards', async () => {
    let fail: (error: Error) => void = () => {};
    const work = new Promise<void>((_, reject) => {
      fail = reject;
    });
    await assert.rejects(unlessAborted(AbortSignal.abort(new Error('aborted')), work), /aborted/);
    fail(new Error('late')); // an unhandled rejection would end the process
    await new Promise((resolve) => setImmediate(resolve));
  });
});
