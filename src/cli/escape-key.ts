/**
 * The key that leaves a console, as QEMU and screen have it: Ctrl-A x leaves, Ctrl-A Ctrl-A sends one Ctrl-A, and
 * Ctrl-A before anything else is sent with it.
 */

const CTRL_A = 0x01;
const LEAVE = 'x'.charCodeAt(0);

export class EscapeKey {
  #pending = false;

  /** What of `typed` goes to the guest, and whether the console is left after that. */
  take(typed: Uint8Array): { bytes: Uint8Array; leave: boolean } {
    const bytes: number[] = [];
    for (const byte of typed) {
      if (!this.#pending) {
        if (byte === CTRL_A) this.#pending = true;
        else bytes.push(byte);
        continue;
      }
      this.#pending = false;
      if (byte === LEAVE) return { bytes: Uint8Array.from(bytes), leave: true };
      if (byte === CTRL_A) bytes.push(CTRL_A);
      else bytes.push(CTRL_A, byte);
    }
    return { bytes: Uint8Array.from(bytes), leave: false };
  }
}
