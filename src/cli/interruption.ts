/** What happens when the user or the system asks a command to end: Ctrl-C, `kill`, a terminal that is closed. */
import { LivesnapError } from '../errors.js';

export const INTERRUPTIONS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Calls `listener` once, at the first such signal. The next one ends the process. Returns what stops listening. */
export function onInterruption(listener: (signal: NodeJS.Signals) => void): () => void {
  const stop = (): void => {
    for (const each of INTERRUPTIONS) process.off(each, heard);
  };
  const heard = (signal: NodeJS.Signals): void => {
    stop();
    listener(signal);
  };
  for (const each of INTERRUPTIONS) process.on(each, heard);
  return stop;
}

/** A signal that is aborted at the first interruption. `what` completes the error `… by SIGINT`. */
export function abortedByInterruption(what: string): AbortSignal {
  const interrupted = new AbortController();
  onInterruption((signal) =>
    interrupted.abort(new LivesnapError('NOT_POSSIBLE_NOW', `${what} by ${signal}`)),
  );
  return interrupted.signal;
}
