/**
 * The main thread's side of a machine's device thread: starts the Worker, sends requests and awaits the replies.
 *
 * Invariants:
 * - Only this class decides that a machine has ended: when its Worker has exited, after the last message. Everything
 *   else learns it from {@link DeviceThreadListener.onEnd}, after the last output.
 * - Every request is settled. If the thread ends first, it fails with MACHINE_GONE.
 * - The process can exit at any moment, because its exit handler wakes the thread from its native wait.
 */
import { Worker } from 'node:worker_threads';
import { LivesnapError } from '../errors.js';
import { closeMachine, type KvmMachine, killMachine } from '../native/kvm.js';
import { ConsoleCounters, countBetween } from './console/console-counters.js';
import { MAX_WAITING_INPUT_BYTES } from './console/console-input.js';
import type { SavedConsole } from './console/saved-console.js';
import type {
  DeviceOperation,
  DeviceReply,
  FromDeviceThread,
  PlainMachineEnd,
  ToDeviceThread,
  VmSetup,
} from './device-thread-messages.js';
import type { MemoryRange } from './disk/block-io.js';
import type { MachineEnd } from './machine-types.js';
import type { MomentReply, MomentRequest } from './moment.js';

export interface DeviceThreadListener {
  /** `missedBytes` of output were dropped before `bytes`, because the main thread was busy. */
  onConsole(bytes: Uint8Array, missedBytes: number): void;
  /** The machine must be paused: a request of the guest waits for the host. */
  onStall(problem: string): void;
  /** The guest has ended the machine, which waits for {@link DeviceThreadClient.stop}. Its vCPUs are parked. */
  onPowerOff(): void;
  /** Called once, after the last output. */
  onEnd(end: MachineEnd): void;
}

interface Waiting<T> {
  resolve(value: T): void;
  reject(error: Error): void;
}

/** The error of every operation on a machine that has ended. */
export const machineGone = (end: MachineEnd | PlainMachineEnd): LivesnapError =>
  new LivesnapError(
    'MACHINE_GONE',
    end.kind === 'failed' ? `the machine failed: ${end.error.message}` : 'the machine has ended',
  );

export const isMachineGone = (error: unknown): boolean =>
  error instanceof LivesnapError && error.code === 'MACHINE_GONE';

/** The thread that was started early and has no machine yet. */
let early: DeviceThreadClient | null = null;

export class DeviceThreadClient {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting<DeviceReply>>();
  readonly #counters = new ConsoleCounters();
  #listener: DeviceThreadListener | null = null;
  #lastId = 0;
  #inputBytes = 0;
  /** How the machine ends, once that is known. More output may still come. */
  #end: PlainMachineEnd | null = null;
  #hasEnded = false;
  #machine: KvmMachine | null = null;
  #ready: Waiting<void> | null = null;
  readonly #onProcessExit = (): void => {
    if (this.#machine !== null) killMachine(this.#machine);
  };

  /** Starts a thread before its machine is known, so that it loads its code meanwhile. */
  static startEarly(): void {
    early ??= new DeviceThreadClient();
  }

  /** A thread for a machine: the one that was started early, or else a new one. */
  static start(): DeviceThreadClient {
    const thread = early ?? new DeviceThreadClient();
    early = null;
    return thread;
  }

  private constructor() {
    this.#worker = new Worker(new URL('./device-thread.js', import.meta.url), {
      name: 'device thread',
      resourceLimits: { maxYoungGenerationSizeMb: 3 },
    });
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

  /** Makes the machine. Resolves when it exists, with its vCPUs parked; then call {@link attach}. */
  begin(setup: VmSetup): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      this.#ready = { resolve, reject };
      if (this.#hasEnded) this.#failBegin();
      else this.#post({ op: 'begin', setup: { ...setup, consoleCounters: this.#counters.shared } });
    });
  }

  /** Sets the listener. No output is missed before, because a guest whose vCPUs are parked has none. */
  attach(listener: DeviceThreadListener): void {
    this.#listener = listener;
    if (this.#hasEnded) this.#tellEnd();
  }

  /** Ends the thread of a machine that nothing listens to. */
  async cancel(): Promise<void> {
    await this.#worker.terminate();
  }

  /** Errors: MACHINE_GONE. */
  get machine(): KvmMachine {
    if (this.#machine === null) throw this.#gone();
    return this.#machine;
  }

  /** Errors: NOT_POSSIBLE_NOW if too much input waits for a guest that does not read; MACHINE_GONE. */
  input(bytes: Uint8Array): void {
    if (this.#end !== null) throw this.#gone();
    const waiting = countBetween(this.#counters.inputBytes, this.#inputBytes);
    if (waiting + bytes.length > MAX_WAITING_INPUT_BYTES) {
      throw new LivesnapError(
        'NOT_POSSIBLE_NOW',
        `the guest does not read its console, and ${waiting} bytes of input wait for it`,
        { hint: `Send at most ${MAX_WAITING_INPUT_BYTES} bytes at once, or wait until the guest reads.` },
      );
    }
    this.#inputBytes = (this.#inputBytes + bytes.length) >>> 0;
    this.#post({ op: 'input', bytes });
  }

  /** Resolves when every vCPU is parked. */
  async pause(): Promise<void> {
    await this.#request({ op: 'pause' });
  }

  async resume(): Promise<void> {
    await this.#request({ op: 'resume' });
  }

  /**
   * The moment of a save (moment.ts). If it fails, the machine is paused. `console` is called when all output before the
   * moment was emitted, and none after it.
   */
  async moment(
    request: MomentRequest,
    console: () => SavedConsole,
  ): Promise<MomentReply & { readonly console: SavedConsole }> {
    let saved: SavedConsole;
    const reply = await this.#request({ op: 'moment', ...request }, () => {
      saved = console();
    });
    return { ...(reply as MomentReply), console: saved! };
  }

  /** False: the guest has not enabled the button's event, and nothing happens. */
  async pressPowerButton(): Promise<boolean> {
    return (await this.#request({ op: 'pressPowerButton' })) === true;
  }

  /** Puts blocks of a disk, ascending, into the staging memory. Errors: SYSTEM, MACHINE_GONE. */
  async readBlocks(disk: number, blocks: Uint32Array): Promise<void> {
    await this.#request({ op: 'readBlocks', disk, blocks });
  }

  /** Sets the bits of the blocks of a disk's image file that may hold data. Errors: MACHINE_GONE. */
  async findData(disk: number, bits: MemoryRange): Promise<void> {
    await this.#request({ op: 'findData', disk, bits });
  }

  /** The save that froze blocks has ended. */
  async thawDisks(): Promise<void> {
    await this.#request({ op: 'thawDisks' });
  }

  /** Starts to end the machine. {@link DeviceThreadListener.onEnd} is called when it has ended. */
  stop(): void {
    if (this.#end === null) this.#post({ id: ++this.#lastId, op: 'stop' });
  }

  #post(message: ToDeviceThread): void {
    this.#worker.postMessage(message);
  }

  #gone(): LivesnapError {
    return machineGone(this.#end ?? { kind: 'stopped' });
  }

  /** `onReply` is called before the messages behind the reply are. */
  #request(operation: DeviceOperation, onReply: () => void = () => {}): Promise<DeviceReply> {
    return new Promise((resolve, reject) => {
      if (this.#end !== null) {
        reject(this.#gone());
        return;
      }
      const id = ++this.#lastId;
      const settled = (value: DeviceReply): void => {
        onReply();
        resolve(value);
      };
      this.#waiting.set(id, { resolve: settled, reject });
      this.#post({ id, ...operation });
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
      case 'stalled':
        this.#listener?.onStall(message.problem);
        break;
      case 'poweredOff':
        this.#listener?.onPowerOff();
        break;
      case 'log':
        process.stderr.write(`${message.message}\n`);
        break;
      case 'reply': {
        const waiting = this.#waiting.get(message.id);
        this.#waiting.delete(message.id);
        if (message.error) waiting?.reject(LivesnapError.fromJSON(message.error));
        else waiting?.resolve(message.value);
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
    // A thread that was terminated has not closed the machine.
    if (this.#machine !== null) closeMachine(this.#machine);
    this.#machine = null;
    for (const { reject } of this.#waiting.values()) reject(this.#gone());
    this.#waiting.clear();
    this.#failBegin();
    this.#tellEnd();
  }

  /** Fails {@link begin} with the reason why the machine could not be made. */
  #failBegin(): void {
    const end = this.#end;
    this.#ready?.reject(end?.kind === 'failed' ? LivesnapError.fromJSON(end.error) : this.#gone());
    this.#ready = null;
  }

  #tellEnd(): void {
    const end = this.#end!;
    this.#listener?.onEnd(
      end.kind === 'failed' ? { kind: 'failed', error: LivesnapError.fromJSON(end.error) } : end,
    );
  }
}
