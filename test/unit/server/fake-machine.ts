/** A machine without KVM for the layers above it: it echoes its input and does what it is told at once. */
import { EventEmitter } from 'node:events';
import { LivesnapError } from '../../../src/errors.js';
import type { SaveSession, SaveTarget } from '../../../src/page-stream.js';
import type {
  MachineConfig,
  MachineEnd,
  MachineEvents,
  MachineHandle,
  MachineSaveResult,
  MachineState,
  SaveThen,
} from '../../../src/vmm/machine-types.js';

/** A store that only has a name. */
export class FakeStore implements SaveTarget {
  constructor(
    readonly dir: string,
    readonly onClose: () => void,
  ) {}
  get key(): string {
    return this.dir;
  }

  async beginSave(): Promise<SaveSession> {
    throw new Error('a fake machine has nothing to save');
  }
  async tidy(): Promise<null> {
    return null;
  }
  async close(): Promise<void> {
    this.onClose();
  }
}

export class FakeMachine implements MachineHandle {
  readonly config: MachineConfig = {
    kernel: '/kernel',
    initrd: null,
    cmdline: null,
    memoryBytes: 64 << 20,
    cpus: 2,
  };
  state: MachineState = 'paused';
  end: MachineEnd | null = null;
  snapshot: string | null = null;
  notices: readonly string[] = ['a notice'];
  readonly input: Buffer[] = [];
  readonly done: string[] = [];
  /** What the next save waits for. */
  saveGate: Promise<void> = Promise.resolve();
  saveError: LivesnapError | null = null;
  readonly #events = new EventEmitter();

  on<K extends keyof MachineEvents>(event: K, listener: (...args: MachineEvents[K]) => void): this {
    this.#events.on(event, listener as (...args: unknown[]) => void);
    return this;
  }
  off<K extends keyof MachineEvents>(event: K, listener: (...args: MachineEvents[K]) => void): this {
    this.#events.off(event, listener as (...args: unknown[]) => void);
    return this;
  }
  say(bytes: Uint8Array | string, missedBytes = 0): void {
    this.#events.emit('console', Buffer.from(bytes), missedBytes);
  }
  finish(end: MachineEnd): void {
    this.state = 'stopped';
    this.end = end;
    this.#events.emit('end', end);
  }
  /** How much more input it takes. */
  room = Number.POSITIVE_INFINITY;
  writeConsole(bytes: Uint8Array): void {
    if (bytes.length > this.room) throw new LivesnapError('NOT_POSSIBLE_NOW', 'too much input waits');
    this.room -= bytes.length;
    this.input.push(Buffer.from(bytes));
  }
  async pause(): Promise<void> {
    this.done.push('pause');
    this.state = 'paused';
  }
  async resume(): Promise<void> {
    this.done.push('resume');
    this.state = 'running';
  }
  async stop(): Promise<void> {
    this.done.push('stop');
    this.finish({ kind: 'stopped' });
  }
  async save(
    store: SaveTarget,
    options: {
      vm: string;
      tag: string | null;
      then: SaveThen | null;
      progress?: (done: number, total: number | null) => void;
    },
  ): Promise<MachineSaveResult> {
    this.done.push(`save ${(store as FakeStore).dir} ${options.vm} ${options.tag} ${options.then}`);
    options.progress?.(1, 2);
    await this.saveGate;
    if (this.saveError !== null) throw this.saveError;
    this.snapshot = 'a'.repeat(32);
    if (options.then === 'stop') this.finish({ kind: 'stopped' });
    return {
      id: this.snapshot,
      tag: options.tag,
      movedFrom: null,
      parent: null,
      pages: 4,
      zeroPages: 1,
      unchangedPages: 0,
      newChunks: 3,
      reusedChunks: 0,
      storedBytes: 12288,
      pauseMs: 1,
      storedWhilePausedBytes: 0,
      saveMs: 2,
    };
  }
}

export const failure = (message: string): MachineEnd => ({
  kind: 'failed',
  error: new LivesnapError('MACHINE_FAILED', message),
});
