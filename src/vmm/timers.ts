/**
 * The timers of the device thread, which has none of Node's: its event loop does not run while it waits.
 *
 * Thread: the device thread.
 */
import type { Timer } from './devices/device.js';

/** The longest that the device thread waits at a time (src/native/kvm.ts, wait). */
const MAX_WAIT_MS = 3_600_000;

export class Timers {
  readonly #nowMs: () => number;
  /** When each armed timer is due, with what it calls. */
  readonly #armed = new Map<Timer, { readonly atMs: number; readonly due: () => void }>();

  /** @param nowMs a clock that never goes back */
  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs;
  }

  create(due: () => void): Timer {
    const timer: Timer = {
      set: (delayMs) => {
        if (delayMs === null) this.#armed.delete(timer);
        else this.#armed.set(timer, { atMs: this.#nowMs() + delayMs, due });
      },
    };
    return timer;
  }

  /** Whole milliseconds, rounded up, until the next one is due, at most an hour; −1 if none is armed. */
  get waitMs(): number {
    if (this.#armed.size === 0) return -1;
    let next = Number.POSITIVE_INFINITY;
    for (const { atMs } of this.#armed.values()) next = Math.min(next, atMs);
    return Math.min(MAX_WAIT_MS, Math.max(0, Math.ceil(next - this.#nowMs())));
  }

  /** Calls what is due now. A timer that is armed meanwhile waits for the next call. */
  run(): void {
    if (this.#armed.size === 0) return;
    const now = this.#nowMs();
    const due = [...this.#armed].filter(([, { atMs }]) => atMs <= now);
    for (const [timer, armed] of due) {
      // One before it may have changed it.
      if (this.#armed.get(timer) !== armed) continue;
      this.#armed.delete(timer);
      armed.due();
    }
  }
}
