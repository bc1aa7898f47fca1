/**
 * How the store waits for other processes: in steps, in JavaScript.
 *
 * Invariant: nothing in src/store waits for another process in any other way. SQLite is given no time of its own, since
 * a thread that it blocks can be neither told nor ended. So all waits can be given up from another thread
 * ({@link sharePatience}), and a machine that ends is not held up by somebody else's lock.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { LivesnapError } from '../../errors.js';

export const STEP_MS = 10;
/** How long another connection that writes to the index is waited for. */
const INDEX_WAIT_MS = 10_000;

/** One word: 0 while others are waited for. */
let patience = new Int32Array(new SharedArrayBuffer(4));

/** The word that {@link sharePatience} takes, for Workers of this thread. */
export const sharedPatience = (): SharedArrayBuffer => patience.buffer as SharedArrayBuffer;

/** Lets the owner of this word end the waits of this thread: see {@link giveUpWaits}. */
export function sharePatience(word: SharedArrayBuffer): void {
  patience = new Int32Array(word);
}

/** Ends all waits, present and to come, of the threads that share this word: they fail with STORE_BUSY. */
export function giveUpWaits(word: SharedArrayBuffer): void {
  const cell = new Int32Array(word);
  Atomics.store(cell, 0, 1);
  Atomics.notify(cell, 0);
}

/** Blocks the thread. Errors: STORE_BUSY when waits have been given up. */
export function waitAStep(): void {
  Atomics.wait(patience, 0, 0, STEP_MS);
  requirePatience();
}

/** As {@link waitAStep}, without blocking the thread. */
export async function sleepAStep(): Promise<void> {
  await sleep(STEP_MS);
  requirePatience();
}

function requirePatience(): void {
  if (Atomics.load(patience, 0) !== 0)
    throw new LivesnapError('STORE_BUSY', 'the wait for another process that uses the store was given up', {
      hint: 'Try again when it is done.',
    });
}

/** Another connection is in the way for a moment. (SQLITE_BUSY_SNAPSHOT is not among these: it is final.) */
const BUSY = new Set(['SQLITE_BUSY', 'SQLITE_BUSY_RECOVERY', 'SQLITE_BUSY_TIMEOUT']);

/** Does work with the index, again for as long as another connection is in the way. `work` must be all or nothing. */
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
