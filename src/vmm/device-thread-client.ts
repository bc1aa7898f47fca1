/**
 * The main thread's side of a machine's device thread: starts the Worker, sends requests and awaits their replies.
 *
 * Invariants: every request is settled, also when the thread ends first (MACHINE_GONE); the process can exit at any
 * moment, because its exit handler wakes the thread out of its native wait.
 */
import { Worker } from 'node:worker_threads';
import { LivesnapError } from '../errors.js';
import { closeMachine, type KvmMachine, killMachine } from '../native/kvm.js';
import { MAX_WAITING_INPUT_BYTES } from './console-input.js';
import type { FromDeviceThread, MachineParts, PlainEnd, ToDeviceThread } from './device-thread-messages.js';

export interface DeviceThreadListener {
  onConsole(bytes: Uint8Array): void;
  onLog(message: string): void;
  /** Once, when the machine is no more and its thread has ended. */
  onEnd(end: PlainEnd): void;
}

type Settle = { resolve: (state: Uint8Array | undefined) => void; reject: (error: Error) => void };

export class DeviceThreadClient {
  readonly #worker: Worker;
  readonly #listener: DeviceThreadListener;
  readonly #waiting = new Map<number, Settle>();
  #lastId = 0;
  #inputWaiting = 0;
  #end: PlainEnd | null = null;
  #machine: KvmMachine | null = null;
  #began = false;
  #ready: { resolve: () => void; reject: (error: Error) => void } | null = null;
  readonly #onProcessExit = (): void => {
    if (this.#machine !== null) killMachine(this.#machine);
  };

  /** Starts the thread; it loads its code while the caller fills the machine's RAM. */
  constructor(listener: DeviceThreadListener) {
    this.#listener = listener;
    this.#worker = new Worker(new URL('./device-thread.js', import.meta.url), { name: 'device thread' });
    this.#worker.on('message', (message: FromDeviceThread) => this.#receive(message));
    this.#worker.on('error', (error) => {
      this.#end ??= {
        kind: 'failed',
        error: { code: 'MACHINE_FAILED', message: `the device thread failed: ${error.message}`, hint: null },
      };
    });
    this.#worker.on('exit', () => this.#finish());
    process.on('exit', this.#onProcessExit);
  }

  /** Makes the machine; resolves when it exists, its vCPUs parked. */
  begin(parts: MachineParts): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      this.#ready = { resolve, reject };
      if (this.#end !== null) this.#finish();
      else this.#worker.postMessage({ op: 'begin', parts } satisfies ToDeviceThread);
    });
  }

  /** Ends a thread that was never given a machine. */
  async cancel(): Promise<void> {
    await this.#worker.terminate();
  }

  get machine(): KvmMachine {
    if (this.#machine === null) throw new LivesnapError('MACHINE_GONE', 'the machine has ended');
    return this.#machine;
  }

  /** @throws LivesnapError NOT_POSSIBLE_NOW when too much waits for a guest that does not read. */
  input(bytes: Uint8Array): void {
    if (this.#end !== null) return;
    if (this.#inputWaiting + bytes.length > MAX_WAITING_INPUT_BYTES) {
      throw new LivesnapError(
        'NOT_POSSIBLE_NOW',
        'the guest does not read its console, and too much input waits for it',
        {
          hint: `At most ${MAX_WAITING_INPUT_BYTES} bytes may wait; send less at once, or wait until the guest reads.`,
        },
      );
    }
    this.#inputWaiting += bytes.length;
    this.#worker.postMessage({ op: 'input', bytes } satisfies ToDeviceThread);
  }

  pause(): Promise<unknown> {
    return this.#request({ id: ++this.#lastId, op: 'pause' });
  }

  resume(): Promise<unknown> {
    return this.#request({ id: ++this.#lastId, op: 'resume' });
  }

  /** The encoded state of everything but RAM; the vCPUs are parked. */
  async saveState(): Promise<Uint8Array> {
    return (await this.#request({ id: ++this.#lastId, op: 'saveState' }))!;
  }

  /** Has the machine end; {@link DeviceThreadListener.onEnd} says when it has. */
  stop(): void {
    if (this.#end === null) {
      this.#worker.postMessage({ id: ++this.#lastId, op: 'stop', end: 'stopped' } satisfies ToDeviceThread);
    }
  }

  #request(request: ToDeviceThread & { id: number }): Promise<Uint8Array | undefined> {
    return new Promise((resolve, reject) => {
      if (this.#end !== null) {
        reject(new LivesnapError('MACHINE_GONE', 'the machine has ended'));
        return;
      }
      this.#waiting.set(request.id, { resolve, reject });
      this.#worker.postMessage(request);
    });
  }

  #receive(message: FromDeviceThread): void {
    switch (message.type) {
      case 'ready':
        this.#machine = message.machine;
        this.#began = true;
        this.#ready?.resolve();
        this.#ready = null;
        break;
      case 'console':
        this.#listener.onConsole(message.bytes);
        break;
      case 'inputTaken':
        this.#inputWaiting -= message.bytes;
        break;
      case 'log':
        this.#listener.onLog(message.message);
        break;
      case 'reply': {
        const settle = this.#waiting.get(message.id);
        this.#waiting.delete(message.id);
        if (message.error) settle?.reject(LivesnapError.fromJSON(message.error));
        else settle?.resolve(message.state);
        break;
      }
      case 'end':
        this.#end ??= message.end;
        break;
    }
  }

  #finish(): void {
    process.off('exit', this.#onProcessExit);
    this.#end ??= { kind: 'stopped' };
    // A thread that was ended from outside has not closed it.
    if (this.#machine !== null) closeMachine(this.#machine);
    this.#machine = null;
    const error =
      this.#end.kind === 'failed'
        ? LivesnapError.fromJSON(this.#end.error)
        : new LivesnapError('MACHINE_GONE', 'the machine has ended');
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    const ready = this.#ready;
    this.#ready = null;
    if (ready) ready.reject(error);
    else if (this.#began) this.#listener.onEnd(this.#end);
  }
}
