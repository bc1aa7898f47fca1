/**
 * The lifetime of a machine: a time at which its process ends it, timed in that process, so that no other program has to
 * run then.
 *
 * Invariant: it is measured by the host's clock, so a suspended host does not extend it.
 */

/** The longest lifetime: 366 days. */
export const MAX_LIFETIME_MS = 366 * 86_400_000;
/** How often the clock is read. A timer does not count the time that the host was suspended. */
const LOOK_EVERY_MS = 30_000;

export class Lifetime {
  readonly #expire: () => void;
  #endsAtMs: number | null = null;
  #timer: NodeJS.Timeout | null = null;

  /** `expire` is called once for each lifetime that ends. */
  constructor(expire: () => void) {
    this.#expire = expire;
  }

  /** ISO 8601, UTC; null: the machine has no end. */
  get endsAt(): string | null {
    return this.#endsAtMs === null ? null : new Date(this.#endsAtMs).toISOString();
  }

  /** From now on; null: without an end. */
  set(lifetimeMs: number | null): void {
    this.#endsAtMs = lifetimeMs === null ? null : Date.now() + lifetimeMs;
    this.#look();
  }

  /** Ends the timer. */
  clear(): void {
    this.set(null);
  }

  #look(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#endsAtMs === null) return;
    const leftMs = this.#endsAtMs - Date.now();
    if (leftMs > 0) {
      this.#timer = setTimeout(() => this.#look(), Math.min(leftMs, LOOK_EVERY_MS));
      return;
    }
    this.#endsAtMs = null;
    this.#expire();
  }
}
