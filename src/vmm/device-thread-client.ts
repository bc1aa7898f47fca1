/**
 * The main thread's side of a machine's device thread: starts the Worker, sends requests and awaits their replies.
 *
 * Invariants:
 * - Here it is decided that a machine has ended, and when: after its last message. All others learn it from
 *   {@link DeviceThreadListener.onEnd}, which comes after the last output.
 * - Every request is settled, also when the thread ends first (MACHINE_GONE).
 * - The process can exit at any moment, because its exit handler wakes the thread out of its native wait.
 */
import { Worker } from 'node:worker_threads';
import { LivesnapError } from '../errors.js';
import { closeMachine, type KvmMachine, killMachine } from '../native/kvm.js';
import { ConsoleCounters, countBetween } from './console/console-counters.js';
import { MAX_WAITING_INPUT_BYTES } from './console/console-input.js';
import type { FromDeviceThread, MachineParts, PlainEnd, ToDeviceThread } from './device-thread-messages.js';

export interface DeviceThreadListener {
  /** `missedBytes` of output were dropped before these, because the main thread was busy. */
  onConsole(bytes: Uint8Array, missedBytes: number): void;
  /** Once, when the machine has ended and all of its output was given. */
  onEnd(end: PlainEnd): void;
}

type Settle = { resolve: (state: Uint8Array | undefined) => void; reject: (error: Error) => void };

/** What every operation on a machine that has ended fails with. */
export const machineGone = (
  end: { kind: string } | { kind: 'failed'; error: { message: string } } | null,
): LivesnapError =>
  new LivesnapError(
    'MACHINE_GONE',
    end !== null && 'error' in end ? `the machine failed: ${end.error.message}` : 'the machine has ended',
  );

export class DeviceThreadClient {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Settle>();
  readonly #counters = new ConsoleCounters();
  #listener: DeviceThreadListener | null = null;
  #lastId = 0;
  #inputBytes = 0;
  #end: PlainEnd | null = null;
  #hasEnded = false;
  #machine: KvmMachine | null = null;
  #ready: { resolve: () => void; reject: (error: Error) => void } | null = null;
  readonly #onProcessExit = (): void => {
    if (this.#machine !== null) killMachine(this.#machine);
  };

  /** Starts the thread; it loads its code while the caller fills the machine's RAM. */
  constructor() {
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

  /** Makes the machine; resolves when it exists, its vCPUs parked. Call {@link attach} then. */
  begin(parts: MachineParts): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      this.#ready = { resolve, reject };
      if (this.#hasEnded) {
        this.#finish();
        return;
      }
      const consoleCounters = this.#counters.shared;
      this.#worker.postMessage({
        op: 'begin',
        parts: { ...parts, consoleCounters },
      } satisfies ToDeviceThread);
    });
  }

  /** Names who is told of output and of the end. A guest whose vCPUs are parked has no output yet. */
  attach(listener: DeviceThreadListener): void {
    this.#listener = listener;
    if (this.#hasEnded) listener.onEnd(this.#end!);
  }

  /** Ends a thread that was never given a machine. */
  async cancel(): Promise<void> {
    await this.#worker.terminate();
  }

  get machine(): KvmMachine {
    if (this.#machine === null) throw machineGone(this.#end);
    return this.#machine;
  }

  /** @throws LivesnapError NOT_POSSIBLE_NOW when too much waits for a guest that does not read. */
  input(bytes: Uint8Array): void {
    if (this.#end !== null) return;
    const waiting = countBetween(this.#counters.inputBytes, this.#inputBytes);
    if (waiting + bytes.length > MAX_WAITING_INPUT_BYTES) {
      throw new LivesnapError(
        'NOT_POSSIBLE_NOW',
        'the guest does not read its console, and too much input waits for it',
        {
          hint: `At most ${MAX_WAITING_INPUT_BYTES} bytes may wait; send less at once, or wait until the guest reads.`,
        },
      );
    }
    this.#inputBytes = (this.#inputBytes + bytes.length) >>> 0;
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
        reject(machineGone(this.#end));
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
        this.#ready?.resolve();
        this.#ready = null;
        break;
      case 'console':
        this.#counters.addOutputMessage();
        this.#listener?.onConsole(message.bytes, message.missedBytes);
        break;
      case 'log':
        process.stderr.write(`${message.message}\n`);
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
    this.#hasEnded = true;
    process.off('exit', this.#onProcessExit);
    this.#end ??= { kind: 'stopped' };
    // A thread that was ended from outside has not closed it.
    if (this.#machine !== null) closeMachine(this.#machine);
    this.#machine = null;
    for (const { reject } of this.#waiting.values()) reject(machineGone(this.#end));
    this.#waiting.clear();
    // A machine that could not be made: why not is what its maker wants to know.
    this.#ready?.reject(
      this.#end.kind === 'failed' ? LivesnapError.fromJSON(this.#end.error) : machineGone(this.#end),
    );
    this.#ready = null;
    this.#listener?.onEnd(this.#end);
  }
}
