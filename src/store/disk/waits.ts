/**
 * How the store waits for other processes: in steps, in JavaScript.
 *
 * Invariants:
 * - Nothing in src/store waits for another process in any other way. SQLite gets no busy timeout, because a thread that
 *   waits inside SQLite can be neither told nor ended.
 * - Another thread can cancel all waits, so that a lock of another process does not hold up a machine that ends. It sets a
 *   flag, one shared word, which is 0 while waits are allowed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { LivesnapError } from '../../errors.js';

export const STEP_MS = 10;
/** How long a transaction of another connection is waited for. */
const INDEX_WAIT_MS = 10_000;

let flag = new Int32Array(new SharedArrayBuffer(4));

/** The flag of this thread, for its Workers: see {@link useCancelFlag}. */
export const cancelFlag = (): SharedArrayBuffer => flag.buffer as SharedArrayBuffer;

/** Makes this thread obey a flag of another thread. */
export function useCancelFlag(shared: SharedArrayBuffer): void {
  flag = new Int32Array(shared);
}

/** Cancels all waits, present and future, of the threads that use this flag: they fail with STORE_BUSY. */
export function cancelWaits(shared: SharedArrayBuffer): void {
  const cell = new Int32Array(shared);
  Atomics.store(cell, 0, 1);
  Atomics.notify(cell, 0);
}

/** Blocks the thread for a step. Errors: STORE_BUSY when waits have been cancelled. */
export function waitAStep(): void {
  Atomics.wait(flag, 0, 0, STEP_MS);
  requireNotCancelled();
}

/** As {@link waitAStep}, without blocking the thread. Errors: the signal's reason, too. */
export async function sleepAStep(signal?: AbortSignal): Promise<void> {
  await sleep(STEP_MS);
  signal?.throwIfAborted();
  requireNotCancelled();
}

function requireNotCancelled(): void {
  if (Atomics.load(flag, 0) !== 0)
    throw new LivesnapError('STORE_BUSY', 'the wait for another process that uses the store was cancelled', {
      hint: 'Try again when it has finished.',
    });
}

/** Another connection is writing at the moment. SQLITE_BUSY_SNAPSHOT is not listed: trying again cannot help. */
const BUSY = new Set(['SQLITE_BUSY', 'SQLITE_BUSY_RECOVERY', 'SQLITE_BUSY_TIMEOUT']);

/** Runs work on the index, and again while another connection is writing. `work` must be all or nothing. */
export function whenIndexIsFree<T>(work: () => T): T {
  for (let waitedMs = 0; ; waitedMs += STEP_MS) {
    try {
      return work();
    } catch (error) {
      const { code = '' } = error as { code?: string };
      if (!BUSY.has(code) || waitedMs >= INDEX_WAIT_MS) throw error;
    }
    waitAStep();
  }
}
