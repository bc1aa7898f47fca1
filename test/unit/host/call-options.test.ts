/** How calls of the library end when they are cancelled. */
import assert from 'node:assert/strict';
import { cancellable, waitingFor } from '../../../src/host/call-options.js';

const REASON = new Error('no longer wanted');
const isReason = (error: unknown): boolean => error === REASON;
const never = (): Promise<never> => assert.fail('it was begun');

describe('a call that can be cancelled', () => {
  it('does not begin when the signal is aborted already', async () => {
    const signal = AbortSignal.abort(REASON);
    await assert.rejects(cancellable({ signal }, never), isReason);
    await assert.rejects(waitingFor({ signal }, never), isReason);
  });

  it('fails with the reason, whatever error the cancelled work ends with', async () => {
    const controller = new AbortController();
    const work = async (): Promise<void> => {
      controller.abort(REASON);
      throw new Error('the connection was closed');
    };
    await assert.rejects(cancellable({ signal: controller.signal }, work), isReason);
  });

  it('resolves if the work completes nevertheless', async () => {
    const controller = new AbortController();
    const work = async (): Promise<string> => {
      controller.abort(REASON);
      return 'done';
    };
    assert.equal(await cancellable({ signal: controller.signal }, work), 'done');
  });

  it('passes on errors and results without a signal', async () => {
    assert.equal(await cancellable({}, async () => 7), 7);
    const failure = new Error('wrong');
    await assert.rejects(
      cancellable({}, async () => {
        throw failure;
      }),
      (error: unknown) => error === failure,
    );
  });

  it('waits no longer than until the signal, also for work that never ends', async () => {
    const controller = new AbortController();
    const waiting = waitingFor({ signal: controller.signal }, () => new Promise<never>(() => {}));
    controller.abort(REASON);
    await assert.rejects(waiting, isReason);
  });
});
