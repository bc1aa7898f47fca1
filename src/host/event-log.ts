/**
 * The latest events of a host, in order, each with its position. A position names this log and a place in it.
 *
 * Invariant: the log has a fixed limit. A reader that is further behind gets the whole state instead.
 */
import { randomBytes } from 'node:crypto';

/** A change, and the position after it. */
export type Logged<C> = C & { readonly position: string };

export class EventLog<C extends object> {
  /** Positions of other logs are unknown here. */
  readonly #name = randomBytes(8).toString('hex');
  #changes: Logged<C>[] = [];
  /** How many changes there have been. */
  #count = 0;

  constructor(readonly limit = 1000) {}

  get position(): string {
    return this.#positionAt(this.#count);
  }

  #positionAt(count: number): string {
    return `${this.#name}-${count}`;
  }

  append(changes: readonly C[]): void {
    for (const change of changes)
      this.#changes.push({ ...change, position: this.#positionAt(++this.#count) });
    this.#changes = this.#changes.slice(-this.limit);
  }

  /** The changes after a position; null if the log does not know all of them. */
  since(position: string): readonly Logged<C>[] | null {
    const [name, digits = ''] = position.split('-');
    const count = Number(digits);
    if (name !== this.#name || !/^\d{1,15}$/.test(digits) || count > this.#count) return null;
    const missed = this.#count - count;
    return missed > this.#changes.length ? null : this.#changes.slice(this.#changes.length - missed);
  }
}
