/**
 * What the device thread waits for besides exits: doorbells of the guest and descriptors of the host. Each has a token,
 * which `wait()` returns.
 *
 * Thread: the device thread.
 */
import { addNotifier, type KvmMachine, unwatchFd, watchFd } from '../native/kvm.js';
import type { Watch } from './devices/device.js';

export class ReadyEvents {
  readonly #machine: KvmMachine;
  readonly #callbacks = new Map<number, () => void>();
  #lastToken = 0;

  constructor(machine: KvmMachine) {
    this.#machine = machine;
  }

  onDoorbell(gpa: number, queue: number, rung: () => void): void {
    addNotifier(this.#machine, { gpa, queue, token: this.#add(rung) });
  }

  watch(fd: number, events: { readonly read: boolean; readonly write: boolean }, ready: () => void): Watch {
    const token = this.#add(ready);
    watchFd(this.#machine, fd, token, events);
    return {
      set: (changed) => watchFd(this.#machine, fd, token, changed),
      end: () => {
        this.#callbacks.delete(token);
        unwatchFd(this.#machine, fd);
      },
    };
  }

  dispatch(token: number): void {
    this.#callbacks.get(token)?.();
  }

  #add(callback: () => void): number {
    this.#callbacks.set(++this.#lastToken, callback);
    return this.#lastToken;
  }
}
