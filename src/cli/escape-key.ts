/**
 * The keys that control a console session, after the prefix Ctrl-A as in screen and QEMU. Ctrl-A Ctrl-A sends one
 * Ctrl-A. Ctrl-A before any other key is sent with that key.
 */

const CTRL_A = 0x01;

export type ConsoleAction = 'detach' | 'save' | 'help';

const ACTIONS: Readonly<Record<string, ConsoleAction>> = { d: 'detach', x: 'detach', s: 'save', '?': 'help' };

export const KEYS_HELP = [
  'Ctrl-A d or x  detach; the machine keeps running',
  'Ctrl-A s       save the machine',
  'Ctrl-A ?       show this help',
  'Ctrl-A Ctrl-A  send one Ctrl-A',
].join('\n');

export class EscapeKey {
  #pending = false;

  /** Returns bytes for the guest, and actions, in the order in which they were typed. */
  take(typed: Uint8Array): (Uint8Array | ConsoleAction)[] {
    const taken: (Uint8Array | ConsoleAction)[] = [];
    let bytes: number[] = [];
    const flush = () => {
      if (bytes.length > 0) taken.push(Uint8Array.from(bytes));
      bytes = [];
    };
    for (const byte of typed) {
      if (!this.#pending) {
        if (byte === CTRL_A) this.#pending = true;
        else bytes.push(byte);
        continue;
      }
      this.#pending = false;
      const action = ACTIONS[String.fromCharCode(byte)];
      if (action !== undefined) {
        flush();
        taken.push(action);
      } else if (byte === CTRL_A) bytes.push(CTRL_A);
      else bytes.push(CTRL_A, byte);
    }
    flush();
    return taken;
  }
}
