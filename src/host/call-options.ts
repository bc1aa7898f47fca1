/** Options that the methods of the library have in common. */
import type { Progress } from '../page-stream.js';

export interface CallOptions {
  /** Cancels the call: it fails with the signal's reason. What it has made by then is removed. */
  readonly signal?: AbortSignal | undefined;
}

export interface LongCallOptions extends CallOptions {
  /** Called several times a second. `totalBytes` is null if it is not known. */
  readonly onProgress?: Progress | undefined;
}

/** A progress function that ends the work that calls it when the signal is aborted. */
export function progressOf({ signal, onProgress }: LongCallOptions): Progress {
  return (doneBytes, totalBytes) => {
    signal?.throwIfAborted();
    onProgress?.(doneBytes, totalBytes);
  };
}
