/** A machine without KVM for the layers above it: it echoes its input and does what it is told at once. */
import { EventEmitter } from 'node:events';
import { LivesnapError } from '../../../src/errors.js';
import type { SaveResult, SaveSession, SaveTarget } from '../../../src/page-stream.js';
import type { SavedConsole } from '../../../src/vmm/console/saved-console.js';
import type {
  MachineConfig,
  MachineEnd,
  MachineEvents,
  MachineHandle,
  MachineSaveOptions,
  MachineSaveResult,
  MachineState,
  WithStore,
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
  problem: string | null = null;
  dirtyBytes: number | null = null;
  /** How often it was counted. */
  counts = 0;
  savesDisks = false;
  notices: readonly string[] = ['a notice'];
  readonly nets = [];
  readonly input: Buffer[] = [];
  readonly done: string[] = [];
  /** What the next save waits for. */
  saveGate: Promise<void> = Promise.resolve();

  /** Saves wait from now on, until the result is called. */
  holdSaves(): () => void {
    let open = (): void => {};
    this.saveGate = new Promise((resolve) => {
      open = resolve;
    });
    return open;
  }

  /** The console that the last save got. */
  saved: SavedConsole | null = null;
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
  /** The host has failed a request of the guest. */
  fail(problem: string): void {
    this.problem = problem;
    this.state = 'paused';
    this.#events.emit('problem', problem);
  }
  /** The guest has turned itself off, and its disks are not saved. */
  powerOff(): void {
    this.state = 'paused';
    this.#events.emit('poweredOff');
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
  countDirtyBytes(): number | null {
    this.counts++;
    return this.dirtyBytes;
  }
  async pause(): Promise<void> {
    this.done.push('pause');
    this.state = 'paused';
  }
  async resume(): Promise<void> {
    this.done.push('resume');
    this.state = 'running';
  }
  readonly savedConsole: SavedConsole | null = null;
  /** Whether the guest has enabled its power button. */
  hasPowerButton = false;
  async pressPowerButton(): Promise<boolean> {
    this.done.push('pressPowerButton');
    return this.hasPowerButton;
  }
  async stop(): Promise<void> {
    this.done.push('stop');
    this.finish({ kind: 'stopped' });
  }
  /** Disks that are not saved yet. */
  diskError: LivesnapError | null = null;
  async saveDisks(
    withStore: WithStore,
    options: { vm: string; tags: readonly string[] },
  ): Promise<SaveResult | null> {
    return withStore(async (store) => {
      this.done.push(`saveDisks ${(store as FakeStore).dir} ${options.vm} [${options.tags}]`);
      if (this.diskError !== null) throw this.diskError;
      return null;
    });
  }
  async save(store: SaveTarget, options: MachineSaveOptions): Promise<MachineSaveResult> {
    this.done.push(`save ${(store as FakeStore).dir} ${options.vm} [${options.tags}] ${options.then}`);
    options.progress?.(1, 2);
    await this.saveGate;
    options.signal?.throwIfAborted();
    this.saved = options.console?.() ?? null;
    if (this.saveError !== null) throw this.saveError;
    this.snapshot = 'a'.repeat(32);
    if (options.then === 'stop') this.finish({ kind: 'stopped' });
    return {
      id: this.snapshot,
      tags: options.tags,
      movedTags: [],
      parent: null,
      pages: 4,
      zeroPages: 1,
      unchangedPages: 0,
      newChunks: 3,
      reusedChunks: 0,
      storedBytes: 12288,
      pauseMs: 1,
      pausePhases: null,
      storedWhilePausedBytes: 0,
      saveMs: 2,
    };
  }
}

export const failure = (message: string): MachineEnd => ({
  kind: 'failed',
  error: new LivesnapError('MACHINE_FAILED', message),
});
