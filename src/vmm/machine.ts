/**
 * A virtual machine: booted from a kernel or restored from a snapshot, then resumed, paused, saved while it runs, ended.
 *
 * Thread: the main thread. Its devices and vCPUs are behind {@link DeviceThreadClient}.
 *
 * Invariants:
 * - A new machine is paused. Listen to its events first and resume it then, so that no output is missed.
 * - Operations that change the machine's state run one after another. `stop` runs at any time.
 * - After the end every operation but `stop` fails with MACHINE_GONE.
 * - If `pause`, `resume` or `save` meets the end, it fails after all output was emitted and `end` was set.
 */
import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { arch, hostname, totalmem } from 'node:os';
import { LivesnapError } from '../errors.js';
import type { OpenSnapshot, Progress, SaveResult, SaveTarget } from '../page-stream.js';
import { readBoot } from './boot/boot-linux.js';
import { MAX_CPUS } from './boot/interrupt-wiring.js';
import { DeviceThreadClient, isMachineGone, machineGone } from './device-thread-client.js';
import type { VmSetup } from './device-thread-messages.js';
import { deviceWindows } from './devices/machine-devices.js';
import { requireTemplate } from './fit/cpu-templates.js';
import { requireFit } from './fit/snapshot-fit.js';
import { describeSavingHost, needsOf, readSavedHost } from './fit/snapshot-needs.js';
import { profileOfThisHost } from './fit/this-host.js';
import { clockNotices, type RestoreClock, wallClockNs } from './kvm/guest-time.js';
import { describeHost, type HostKvm } from './kvm/host.js';
import { nestedNotices } from './kvm/nested.js';
import { pvmCmdline } from './kvm/pvm.js';
import { checkRegions, MachineRegions, regionsOf } from './machine-regions.js';
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
import { readSavedMachine, type SavedMachine } from './saved-machine.js';
import { invalidState } from './saved-state.js';

const DEFAULT_CMDLINE = 'console=ttyS0 reboot=t panic=-1';
const RNG_SEED_BYTES = 32;

const PVM_NOTICE = `this host's KVM is a PVM, which emulates the guest's kernel mode: livesnap added "${pvmCmdline('')}" to the command line, keeps timer deadlines at least 40 ms away, and completes int3 and fwait for the guest`;

function checkFits(host: HostKvm, { cpus, memoryBytes }: MachineConfig): void {
  const maxCpus = Math.min(host.maxCpus, MAX_CPUS);
  if (!Number.isInteger(cpus) || cpus < 1 || cpus > maxCpus) {
    throw new LivesnapError('USAGE', `a machine cannot have ${cpus} vCPUs on this host`, {
      hint: `Give between 1 and ${maxCpus}.`,
    });
  }
  if (memoryBytes > totalmem()) {
    throw new LivesnapError(
      'HOST_LACKS',
      `the machine needs ${memoryBytes} bytes of memory, and this host has ${totalmem()}`,
      { hint: 'Give the machine less memory, or use a host with more.' },
    );
  }
}

/** What a machine is made from, before its RAM is filled. */
interface MachineSetup extends SavedMachine {
  readonly notices: readonly string[];
  readonly regions: MachineRegions;
  /** The snapshot that it is restored from. */
  readonly base: string | null;
}

export class Machine extends EventEmitter<MachineEvents> implements MachineHandle {
  readonly #setup: MachineSetup;
  readonly #thread: DeviceThreadClient;
  readonly #dirty: DirtyPages;
  #isRunning = false;
  #end: MachineEnd | null = null;
  /** Settles when the last operation that was asked for has. */
  #lastOperation: Promise<unknown> = Promise.resolve();
  readonly #ended: Promise<MachineEnd>;

  private constructor(setup: MachineSetup, thread: DeviceThreadClient) {
    super();
    this.#setup = setup;
    this.#thread = thread;
    this.#dirty = new DirtyPages(thread.machine, setup.regions.slots, setup.base, setup.base !== null);
    this.#ended = new Promise((resolve) => {
      thread.attach({
        onConsole: (bytes, missedBytes) => this.emit('console', bytes, missedBytes),
        onEnd: (end) => {
          this.#end = end;
          setup.regions.free();
          resolve(end);
          this.emit('end', end);
        },
      });
    });
  }

  /**
   * Makes a machine that boots a kernel, paused before its first instruction.
   * @throws LivesnapError NO_KVM, NO_SUCH_FILE, BAD_IMAGE, USAGE or HOST_LACKS before a vCPU exists
   */
  static async create(given: MachineConfig): Promise<Machine> {
    const config = { ...given, rng: given.rng ?? true };
    const host = describeHost();
    checkFits(host, config);
    if (config.cpuTemplate !== undefined) requireTemplate(config.cpuTemplate, profileOfThisHost());
    const cmdline = config.cmdline ?? DEFAULT_CMDLINE;
    const isPvm = host.kind === 'pvm';
    const plan = readBoot({
      kernelPath: config.kernel,
      initrdPath: config.initrd,
      cmdline: isPvm ? pvmCmdline(cmdline) : cmdline,
      memoryBytes: config.memoryBytes,
      cpus: config.cpus,
      rngSeed: randomBytes(RNG_SEED_BYTES),
      windows: deviceWindows(config),
    });
    const regions = MachineRegions.allocate(config);
    const notices = isPvm ? [PVM_NOTICE] : [];
    const setup = { config: { ...config, cmdline }, bootPath: plan.path, notices, regions, base: null };
    return Machine.#launch(setup, () => ({
      boot: plan.load(new GuestRam(regions.slots)),
      cpuTemplate: config.cpuTemplate,
    }));
  }

  /**
   * Restores a snapshot with all of its RAM, paused where it was saved. `clock`: whether the guest's clocks count the time
   * since the save.
   * @throws LivesnapError USAGE, BAD_STATE, NEWER_FORMAT or HOST_LACKS before a vCPU exists; DAMAGED
   */
  static async restore(
    snapshot: OpenSnapshot,
    progress?: Progress,
    { clock = 'host' }: { readonly clock?: RestoreClock } = {},
  ): Promise<Machine> {
    const host = profileOfThisHost();
    const { summary, metadata } = snapshot;
    if (metadata.kind !== 'machine') {
      throw new LivesnapError('USAGE', `snapshot ${summary.id} is a file, not a machine`, {
        hint: 'Write it out with livesnap get.',
      });
    }
    const { vcpus, vm } = decodeMachineState(metadata.state);
    const { config, bootPath } = readSavedMachine(metadata.machine);
    if (vcpus.length !== config.cpus) {
      throw invalidState(`machine.config.cpus is ${config.cpus}, but vcpus has ${vcpus.length} items`);
    }
    checkRegions(regionsOf(config), snapshot.regions);
    const needs = needsOf(vcpus, config, readSavedHost(metadata.host));
    const notices = [
      ...requireFit(summary.id, needs, host),
      ...nestedNotices(vcpus),
      ...clockNotices(clock, vm.realtimeNs, wallClockNs()),
    ];
    const regions = MachineRegions.allocate(config);
    return Machine.#launch({ config, bootPath, notices, regions, base: summary.id }, async () => {
      await snapshot.fill(regions.sink(), progress);
      return { state: metadata.state, clock };
    });
  }

  /** `fill` runs while the device thread loads its code. */
  static async #launch(
    setup: MachineSetup,
    fill: () => VmSetup['start'] | Promise<VmSetup['start']>,
  ): Promise<Machine> {
    const { config, regions } = setup;
    let thread: DeviceThreadClient | null = null;
    try {
      thread = new DeviceThreadClient();
      await thread.begin({ slots: regions.slots, cpus: config.cpus, devices: config, start: await fill() });
      return new Machine(setup, thread);
    } catch (error) {
      await thread?.cancel();
      regions.free();
      throw error;
    }
  }

  get config(): MachineConfig {
    return this.#setup.config;
  }

  get notices(): readonly string[] {
    return this.#setup.notices;
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
    return this.#inTurn(() => this.#pause());
  }

  resume(): Promise<void> {
    return this.#inTurn(() => this.#resume());
  }

  async stop(): Promise<void> {
    this.#thread.stop();
    await this.#ended;
  }

  save(
    store: SaveTarget,
    options: { vm: string; tag: string | null; then: SaveThen | null; progress?: Progress },
  ): Promise<MachineSaveResult> {
    return this.#inTurn(async () => {
      const startedMs = performance.now();
      const then = options.then ?? (this.#isRunning ? 'resume' : 'pause');
      const base = this.#dirty.base;
      const saved = await this.#saveFrom(base, store, then, options).catch((error) => {
        // If the parent is damaged, save everything again.
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
    const { config, bootPath, regions } = this.#setup;
    const wasRunning = this.#isRunning;
    let pausedAtMs = 0;
    let pauseMs = 0;
    let state: Uint8Array | null = null;
    const session = await store.beginSave({
      regions: regions.list.map(({ name }) => ({
        region: name,
        bases: parent === null ? [] : [{ snapshot: parent, region: name }],
      })),
      tag,
    });
    try {
      const source = regions.source({
        dirty: this.#dirty,
        full: session.bases.includes(null),
        hooks: {
          pause: async () => {
            pausedAtMs = performance.now();
            await this.#pause();
          },
          captureAndContinue: async () => {
            state = await this.#thread.saveState();
            if (wasRunning && then === 'resume') await this.#resumeUnlessEnded();
            pauseMs = wasRunning ? performance.now() - pausedAtMs : 0;
          },
        },
      });
      await session.store(source, progress);
      const result = await session.commit({
        kind: 'machine',
        vm,
        tag,
        memoryBytes: config.memoryBytes,
        diskBytes: 0,
        machine: { config, bootPath } satisfies SavedMachine,
        host: describeSavingHost(profileOfThisHost(), { hostname: hostname(), arch: arch() }),
        state: state!,
      });
      const { storedWhilePausedBytes } = source;
      return { ...result, pauseMs: round(pauseMs), storedWhilePausedBytes };
    } catch (error) {
      try {
        // A failed save leaves the machine as it was. The guest does not wait for the store to give the save up.
        if (wasRunning) await this.#resumeUnlessEnded();
      } finally {
        // The failure of the save is reported, not that of its clean-up: gc deletes what that leaves behind.
        await session.abort().catch(() => {});
      }
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

  /** For a save, which succeeds even if the machine ends after the moment of the snapshot. */
  async #resumeUnlessEnded(): Promise<void> {
    await this.#resume().catch((error) => {
      if (!isMachineGone(error)) throw error;
    });
  }

  /** Runs an operation after all that were asked for before it. */
  #inTurn<T>(operation: () => Promise<T>): Promise<T> {
    const result = this.#lastOperation.then(async () => {
      if (this.#end !== null) throw machineGone(this.#end);
      try {
        return await operation();
      } catch (error) {
        // Native code may know of the end before this thread does.
        throw isMachineGone(error) ? machineGone(await this.#ended) : error;
      }
    });
    this.#lastOperation = result.catch(() => {});
    return result;
  }
}

const round = (ms: number): number => Math.round(ms * 1000) / 1000;
