/**
 * The latest events of a host, in order, each with its position. A position names this log and a place in it.
 *
 * Invariant: the log has a fixed limit. A reader that is further behind gets the whole state instead.
 */
import { randomBytes } from 'node:crypto';
import type { HostChange } from './host-state.js';

/** A change, and the position after it. */
export type LoggedChange = HostChange & { readonly position: string };

export class EventLog {
  /** Positions of other logs are unknown here. */
  readonly #name = randomBytes(8).toString('hex');
  #changes: LoggedChange[] = [];
  /** How many changes there have been. */
  #count = 0;

  constructor(readonly limit = 1000) {}

  get position(): string {
    return this.#positionAt(this.#count);
  }

  #positionAt(count: number): string {
    return `${this.#name}-${count}`;
  }

  append(changes: readonly HostChange[]): void {
    for (const change of changes)
      this.#changes.push({ ...change, position: this.#positionAt(++this.#count) });
    this.#changes = this.#changes.slice(-this.limit);
  }

  /** The changes after a position; null if the log does not know all of them. */
  since(position: string): readonly LoggedChange[] | null {
    const [name, digits = ''] = position.split('-');
    const count = Number(digits);
    if (name !== this.#name || !/^\d{1,15}$/.test(digits) || count > this.#count) return null;
    const missed = this.#count - count;
    return missed > this.#changes.length ? null : this.#changes.slice(this.#changes.length - missed);
  }
}
