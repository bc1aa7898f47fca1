/**
 * Lines of a terminal that change in place.
 *
 * Invariant: they are only ever overwritten, so an interrupted command leaves the last ones, and no mode of the terminal
 * is changed.
 */
import type { WriteStream } from 'node:tty';

/** More often is not seen. */
const INTERVAL_MS = 50;

export class LiveLines {
  readonly #terminal: Pick<WriteStream, 'write'>;
  readonly #nowMs: () => number;
  #shown = 0;
  #lastMs = Number.NEGATIVE_INFINITY;

  constructor(terminal: Pick<WriteStream, 'write'>, nowMs: () => number = () => performance.now()) {
    this.#terminal = terminal;
    this.#nowMs = nowMs;
  }

  /** Replaces the lines. Some calls are left out: call it again with what counts. */
  show(lines: readonly string[]): void {
    const nowMs = this.#nowMs();
    if (nowMs - this.#lastMs < INTERVAL_MS) return;
    this.#lastMs = nowMs;
    const up = this.#shown === 0 ? '' : `\x1b[${this.#shown}A`;
    this.#terminal.write(`${up}${lines.map((line) => `\r${line}\x1b[K\n`).join('')}`);
    this.#shown = lines.length;
  }
}
