/**
 * The log of the server, on stderr.
 *
 * Invariants:
 * - Nothing here throws: a log that cannot be written is no failure of a request.
 * - What clients do wrong cannot fill the disk: equal refusals are one entry a minute, with their number, and at most
 *   MAX_KINDS kinds are told apart.
 */
import { Log } from '../machine/log.js';

const REPEAT_MS = 60_000;
const MAX_KINDS = 100;
const OTHERS = 'other requests';

export class ServerLog {
  readonly #log: Log;
  readonly #nowMs: () => number;
  readonly #refusals = new Map<string, { sinceMs: number; count: number }>();

  constructor(log: Log = new Log(2), nowMs: () => number = Date.now) {
    this.#log = log;
    this.#nowMs = nowMs;
  }

  say(sentence: string): void {
    this.#log.write(sentence);
  }

  fault(error: unknown): void {
    this.#log.writeError(error);
  }

  /** Notes a request that was refused. */
  refused(what: string): void {
    const nowMs = this.#nowMs();
    const isKnown = this.#refusals.has(what) || this.#refusals.size < MAX_KINDS;
    const kind = isKnown ? what : OTHERS;
    const found = this.#refusals.get(kind);
    if (found !== undefined && nowMs - found.sinceMs < REPEAT_MS) {
      found.count++;
      return;
    }
    const times =
      found === undefined || found.count === 1 ? '' : ` (${found.count} times since the last entry)`;
    this.#log.write(`refused: ${kind}${times}`);
    this.#refusals.set(kind, { sinceMs: nowMs, count: 1 });
  }
}
