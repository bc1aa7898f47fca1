/**
 * The key that detaches from a console, as in QEMU: Ctrl-A x detaches, Ctrl-A Ctrl-A sends one Ctrl-A. Ctrl-A before any
 * other key is sent with that key.
 */

const CTRL_A = 0x01;
const DETACH = 'x'.charCodeAt(0);

export class EscapeKey {
  #pending = false;

  /** Returns the bytes for the guest, and whether to detach after them. */
  take(typed: Uint8Array): { bytes: Uint8Array; detach: boolean } {
    const bytes: number[] = [];
    for (const byte of typed) {
      if (!this.#pending) {
        if (byte === CTRL_A) this.#pending = true;
        else bytes.push(byte);
        continue;
      }
      this.#pending = false;
      if (byte === DETACH) return { bytes: Uint8Array.from(bytes), detach: true };
      if (byte === CTRL_A) bytes.push(CTRL_A);
      else bytes.push(CTRL_A, byte);
    }
    return { bytes: Uint8Array.from(bytes), detach: false };
  }
}
