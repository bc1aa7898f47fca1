/** Options that the methods of the library have in common. */
import type { Progress } from '../page-stream.js';
import { unlessAborted } from '../unless-aborted.js';

export interface CallOptions {
  /** Cancels the call: it fails with the signal's reason. What it has made by then is removed. */
  readonly signal?: AbortSignal | undefined;
}

export interface LongCallOptions extends CallOptions {
  /** Called several times a second. `totalBytes` is null if it is not known. */
  readonly onProgress?: Progress | undefined;
}

/**
 * Does work that ends by itself when the signal is aborted, unless it is aborted already. Resolves if the work
 * completes nevertheless. Errors: the signal's reason.
 */
export async function cancellable<T>({ signal }: CallOptions, work: () => Promise<T>): Promise<T> {
  signal?.throwIfAborted();
  try {
    return await work();
  } catch (error) {
    throw signal?.aborted ? signal.reason : error;
  }
}

/** Does the work, unless the signal is aborted already, and waits for it until then. Errors: the signal's reason. */
export async function waitingFor<T>({ signal }: CallOptions, work: () => Promise<T>): Promise<T> {
  signal?.throwIfAborted();
  return unlessAborted(signal, work());
}
