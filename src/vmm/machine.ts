/**
 * A virtual machine as the rest of livesnap knows it: made from a kernel or restored from a snapshot, resumed, paused,
 * saved while it runs, ended. Lives on the main thread; its devices and vCPUs live behind {@link DeviceThreadClient}.
 *
 * Invariants:
 * - A new machine is paused. Whoever made it listens first and resumes it then, so that no output and no end is missed.
 * - One operation that changes the machine's state runs at a time; the others wait their turn.
 * - After the end every operation fails with MACHINE_GONE.
 */
import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { arch, hostname, release, totalmem } from 'node:os';
import { LivesnapError } from '../errors.js';
import { closeMemory, createMemory, writePages } from '../native/memory.js';
import type {
  OpenSnapshot,
  PageRun,
  PageSink,
  Progress,
  Region,
  SaveResult,
  SaveTarget,
} from '../page-stream.js';
import { readBoot } from './boot/boot-linux.js';
import type { BootPath } from './boot/boot-state.js';
import { MAX_CPUS } from './boot/interrupt-wiring.js';
import { type RamSlot, ramLayout } from './boot/memory-layout.js';
import { DeviceThreadClient, machineGone } from './device-thread-client.js';
import type { MachineParts } from './device-thread-messages.js';
import { describeHost, type HostKvm } from './kvm/host.js';
import { nestedNotices } from './kvm/nested.js';
import { pvmCmdline } from './kvm/pvm.js';
import type { MemorySlot } from './kvm/vm.js';
import { decodeMachineState } from './machine-state.js';
import type {
  MachineConfig,
  MachineEnd,
  MachineEvents,
  MachineHandle,
  MachineSaveResult,
  MachineState,
  SaveThen,
} from './machine-types.js';
import { DirtyPages } from './memory/dirty-pages.js';
import { GuestRam } from './memory/guest-memory.js';
import { RamSource, regionName } from './memory/ram-source.js';
import { WrittenPages } from './memory/written-pages.js';

const DEFAULT_CMDLINE = 'console=ttyS0 reboot=t panic=-1';
const RNG_SEED_BYTES = 32;

/** What a snapshot says of the machine it is of (`show`); its restore needs `config` from it, checked. */
interface SavedMachine {
  readonly config: MachineConfig;
  readonly bootPath: BootPath | null;
}

function allocate(layout: readonly RamSlot[]): MemorySlot[] {
  const slots: MemorySlot[] = [];
  try {
    for (const slot of layout) {
      slots.push({
        ...slot,
        memory: createMemory(slot.sizeBytes),
        written: WrittenPages.allocate(slot.sizeBytes),
      });
    }
  } catch (error) {
    free(slots);
    throw error;
  }
  return slots;
}

function free(slots: readonly MemorySlot[]): void {
  for (const { memory } of slots) closeMemory(memory);
}

function checkFits(host: HostKvm, config: Pick<MachineConfig, 'cpus' | 'memoryBytes'>): void {
  const { cpus, memoryBytes } = config;
  const maxCpus = Math.min(host.maxCpus, MAX_CPUS);
  if (!Number.isInteger(cpus) || cpus < 1 || cpus > maxCpus) {
    throw new LivesnapError('USAGE', `a machine cannot have ${cpus} vCPUs`, {
      hint: `Give between 1 and ${maxCpus}.`,
    });
  }
  if (memoryBytes > totalmem()) {
    throw new LivesnapError(
      'HOST_LACKS',
      `${memoryBytes} bytes of memory are more than this host has (${totalmem()})`,
      {
        hint: 'Give the machine less memory, or use a host with more.',
      },
    );
  }
}

export class Machine extends EventEmitter<MachineEvents> implements MachineHandle {
  readonly config: MachineConfig;
  readonly notices: readonly string[];
  readonly #host: HostKvm;
  readonly #bootPath: BootPath | null;
  readonly #slots: readonly MemorySlot[];
  readonly #thread: DeviceThreadClient;
  readonly #dirty: DirtyPages;
  #isRunning = false;
  #end: MachineEnd | null = null;
  #turn: Promise<unknown> = Promise.resolve();
  readonly #ended: Promise<void>;

  private constructor(parts: {
    config: MachineConfig;
    host: HostKvm;
    notices: readonly string[];
    bootPath: BootPath | null;
    slots: readonly MemorySlot[];
    thread: DeviceThreadClient;
    base: string | null;
  }) {
    super();
    this.config = parts.config;
    this.notices = parts.notices;
    this.#host = parts.host;
    this.#bootPath = parts.bootPath;
    this.#slots = parts.slots;
    this.#thread = parts.thread;
    this.#dirty = new DirtyPages(parts.thread.machine, parts.slots, parts.base, parts.base !== null);
    this.#ended = new Promise((resolve) => {
      parts.thread.attach({
        onConsole: (bytes, missedBytes) => this.emit('console', bytes, missedBytes),
        onEnd: (end) => {
          this.#end =
            end.kind === 'failed' ? { kind: 'failed', error: LivesnapError.fromJSON(end.error) } : end;
          free(this.#slots);
          this.emit('end', this.#end);
          resolve();
        },
      });
    });
  }

  /**
   * Makes a machine that is to boot a kernel, paused before its first instruction.
   * @throws LivesnapError NO_KVM, NO_SUCH_FILE, BAD_IMAGE, USAGE or HOST_LACKS before a vCPU exists.
   */
  static async create(config: MachineConfig): Promise<Machine> {
    const host = describeHost();
    checkFits(host, config);
    const cmdline = config.cmdline ?? DEFAULT_CMDLINE;
    const pvm = host.kind === 'pvm';
    const plan = readBoot({
      kernelPath: config.kernel,
      initrdPath: config.initrd,
      cmdline: pvm ? pvmCmdline(cmdline) : cmdline,
      memoryBytes: config.memoryBytes,
      cpus: config.cpus,
      rngSeed: randomBytes(RNG_SEED_BYTES),
    });
    const slots = allocate(plan.layout);
    const notices = pvm
      ? [
          `this host's KVM is a PVM, which emulates the guest's kernel mode: added "${pvmCmdline('')}" to the command line, kept timer deadlines at least 40 ms away and finish int3 and fwait for the guest`,
        ]
      : [];
    return Machine.#launch(host, slots, { ...config, cmdline }, plan.path, notices, null, () => ({
      boot: plan.load(new GuestRam(slots)),
    }));
  }

  /** Restores a snapshot with all of its RAM, paused where it was saved. */
  static async restore(snapshot: OpenSnapshot, progress?: Progress): Promise<Machine> {
    const host = describeHost();
    if (snapshot.metadata.kind !== 'machine') {
      throw new LivesnapError('USAGE', `snapshot ${snapshot.summary.id} is a file, not a machine`, {
        hint: 'Write it out with livesnap get.',
      });
    }
    const state = decodeMachineState(snapshot.metadata.state);
    const { config, bootPath } = checkSavedMachine(snapshot.metadata.machine);
    if (state.vcpus.length !== config.cpus) {
      throw new LivesnapError('BAD_STATE', 'the snapshot has another number of vCPUs than its machine');
    }
    checkFits(host, config);
    const layout = ramLayout(config.memoryBytes);
    checkRegions(layout, snapshot.regions);
    const slots = allocate(layout);
    const sink: PageSink = {
      regions: snapshot.regions,
      memories: slots.map(({ memory }) => memory),
      write({ region, pages }: PageRun, bytes: Uint8Array) {
        writePages(slots[region]!.memory, pages, bytes);
      },
    };
    const notices = nestedNotices(state.vcpus);
    return Machine.#launch(host, slots, config, bootPath, notices, snapshot.summary.id, async () => {
      await snapshot.fill(sink, progress);
      return { state: snapshot.metadata.state };
    });
  }

  static async #launch(
    host: HostKvm,
    slots: readonly MemorySlot[],
    config: MachineConfig,
    bootPath: BootPath | null,
    notices: readonly string[],
    base: string | null,
    fill: () => MachineParts['begin'] | Promise<MachineParts['begin']>,
  ): Promise<Machine> {
    const thread = new DeviceThreadClient();
    try {
      await thread.begin({ slots, cpus: config.cpus, begin: await fill() });
      return new Machine({ config, host, notices, bootPath, slots, thread, base });
    } catch (error) {
      await thread.cancel();
      free(slots);
      throw error;
    }
  }

  get state(): MachineState {
    if (this.#end !== null) return 'stopped';
    return this.#isRunning ? 'running' : 'paused';
  }

  get end(): MachineEnd | null {
    return this.#end;
  }

  get snapshot(): string | null {
    return this.#dirty.base;
  }

  writeConsole(bytes: Uint8Array): void {
    this.#thread.input(bytes);
  }

  pause(): Promise<void> {
    return this.#exclusively(() => this.#pause());
  }

  resume(): Promise<void> {
    return this.#exclusively(() => this.#resume());
  }

  async stop(): Promise<void> {
    this.#thread.stop();
    await this.#ended;
  }

  save(
    store: SaveTarget,
    options: { vm: string; tag: string | null; then: SaveThen | null; progress?: Progress },
  ): Promise<MachineSaveResult> {
    return this.#exclusively(async () => {
      const startedMs = performance.now();
      const then = options.then ?? (this.#isRunning ? 'resume' : 'pause');
      const base = this.#dirty.base;
      const saved = await this.#saveFrom(base, store, then, options).catch((error) => {
        // What of the parent is damaged is saved anew, whole.
        if (base === null || !(error instanceof LivesnapError && error.code === 'DAMAGED')) throw error;
        return this.#saveFrom(null, store, then, options);
      });
      this.#dirty.commit(saved.id);
      if (then === 'stop') await this.stop();
      else if (then === 'resume') await this.#resumeUnlessEnded();
      return { ...saved, saveMs: round(performance.now() - startedMs) };
    });
  }

  async #saveFrom(
    parent: string | null,
    store: SaveTarget,
    then: SaveThen,
    { vm, tag, progress }: { vm: string; tag: string | null; progress?: Progress },
  ): Promise<SaveResult & { pauseMs: number; storedWhilePausedBytes: number }> {
    const wasRunning = this.#isRunning;
    let pauseMs = 0;
    let state: Uint8Array | null = null;
    const session = await store.beginSave({ parent, tag });
    try {
      const source = new RamSource(this.#slots, this.#dirty, session.parent === null, {
        pause: async () => {
          pauseMs = performance.now();
          await this.#pause();
        },
        captureAndContinue: async () => {
          state = await this.#thread.saveState();
          if (wasRunning && then === 'resume') await this.#resumeUnlessEnded();
          pauseMs = wasRunning ? performance.now() - pauseMs : 0;
        },
      });
      await session.store(source, progress);
      const result = await session.commit({
        kind: 'machine',
        vm,
        tag,
        memoryBytes: this.config.memoryBytes,
        diskBytes: 0,
        machine: { config: this.config, bootPath: this.#bootPath } satisfies SavedMachine,
        host: { kvm: this.#host.kind, hostname: hostname(), kernel: release(), arch: arch() },
        state: state!,
      });
      const { storedWhilePausedBytes } = source;
      return { ...result, pauseMs: round(pauseMs), storedWhilePausedBytes };
    } catch (error) {
      await session.abort();
      // A save that failed leaves the machine as it was.
      if (wasRunning) await this.#resumeUnlessEnded();
      throw error;
    }
  }

  async #pause(): Promise<void> {
    if (!this.#isRunning) return;
    await this.#thread.pause();
    this.#isRunning = false;
  }

  async #resume(): Promise<void> {
    if (this.#isRunning) return;
    await this.#thread.resume();
    this.#isRunning = true;
  }

  /** For a save: it is as good when the machine ends after the moment that it shows. */
  async #resumeUnlessEnded(): Promise<void> {
    await this.#resume().catch((error) => {
      if (!(error instanceof LivesnapError && error.code === 'MACHINE_GONE')) throw error;
    });
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(() => {
      if (this.#end !== null) throw machineGone(this.#end);
      return work();
    });
    this.#turn = result.catch(() => {});
    return result;
  }
}

const round = (ms: number): number => Math.round(ms * 1000) / 1000;

function checkRegions(layout: readonly RamSlot[], regions: readonly Region[]): void {
  const expected = layout.map((slot) => `${regionName(slot)}:${slot.sizeBytes}`).join();
  const found = regions.map(({ name, sizeBytes }) => `${name}:${sizeBytes}`).join();
  if (expected !== found) {
    throw new LivesnapError(
      'BAD_STATE',
      `the snapshot's memory (${found}) is not that of its machine (${expected})`,
    );
  }
}

/** Checks what a snapshot says of its machine. @throws LivesnapError BAD_STATE */
function checkSavedMachine(value: unknown): SavedMachine {
  const { config, bootPath } = (value ?? {}) as Partial<Record<keyof SavedMachine, unknown>>;
  const { kernel, initrd, cmdline, memoryBytes, cpus } = (config ?? {}) as Partial<
    Record<keyof MachineConfig, unknown>
  >;
  const isText = (field: unknown): field is string => typeof field === 'string';
  const isTextOrNull = (field: unknown): field is string | null => field === null || isText(field);
  if (
    !isText(kernel) ||
    !isTextOrNull(initrd) ||
    !isTextOrNull(cmdline) ||
    !isTextOrNull(bootPath) ||
    !Number.isSafeInteger(memoryBytes) ||
    !Number.isSafeInteger(cpus)
  ) {
    throw new LivesnapError('BAD_STATE', 'the snapshot does not say what machine it is of');
  }
  return {
    config: { kernel, initrd, cmdline, memoryBytes: memoryBytes as number, cpus: cpus as number },
    bootPath: bootPath as BootPath | null,
  };
}
