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
import { EventEmitter } from 'node:events';
import { arch, hostname } from 'node:os';
import { BitSet } from '../bit-set.js';
import { LivesnapError } from '../errors.js';
import type { Labels } from '../labels.js';
import { closeMemory, createMemory, readMemory } from '../native/memory.js';
import {
  type OpenSnapshot,
  PAGE_BYTES,
  type PageSource,
  type Progress,
  type SaveBase,
  type SavedRegion,
  type SaveResult,
  type SaveTarget,
} from '../page-stream.js';
import { unlessAborted } from '../unless-aborted.js';
import type { SavedConsole } from './console/saved-console.js';
import { DeviceThreadClient, isMachineGone, machineGone } from './device-thread-client.js';
import { isUnwritten } from './disk/data-blocks.js';
import { totalDiskBytes } from './disk/disk-config.js';
import { blocksOf } from './disk/disk-setup.js';
import { DiskSource } from './disk/disk-source.js';
import { describeSavingHost } from './fit/snapshot-needs.js';
import { profileOfThisHost } from './fit/this-host.js';
import {
  type CreateOptions,
  endsWithMachine,
  freeSetup,
  type MachineSetup,
  type PreparedMachine,
  type RestoreOptions,
  setUpBoot,
  setUpRestore,
} from './machine-setup.js';
import { MachineSource, type MomentOptions } from './machine-source.js';
import { encodeMachineState } from './machine-state.js';
import type {
  MachineConfig,
  MachineEnd,
  MachineEvents,
  MachineHandle,
  MachineSaveOptions,
  MachineSaveResult,
  MachineState,
  PausePhases,
  PauseResult,
  SaveThen,
  WithStore,
} from './machine-types.js';
import { DirtyPages } from './memory/dirty-pages.js';
import type { NetReport } from './net/machine-nets.js';
import { isSameBase, SaveBases, usedBase } from './save-bases.js';
import type { SavedMachine } from './saved-machine.js';

/** What a region may be stored relative to in one save. */
type BasesOf = (region: number) => SavedRegion;

const NO_CONSOLE: SavedConsole = {
  history: new Uint8Array(0),
  starter: new Uint8Array(0),
  starterInLine: false,
};

export class Machine extends EventEmitter<MachineEvents> implements MachineHandle {
  readonly #setup: MachineSetup;
  readonly #thread: DeviceThreadClient;
  readonly #dirty: DirtyPages;
  readonly #bases: SaveBases;
  #isRunning = false;
  #problem: string | null = null;
  /** Blocks that the device thread reads for a save. */
  #lastRead: Promise<void> = Promise.resolve();
  /** By {@link saveDisks}, and the guest has not run since. */
  #areDisksSaved = false;
  /** A pause because of a problem waits for its turn. */
  #isStalling = false;
  /** The device thread may have fetched dirty bits that this thread does not have yet. */
  #isAtMoment = false;
  /** The last count, and the snapshot that it is relative to. */
  #lastCount: { readonly snapshot: string; readonly bytes: number } | null = null;
  /** The guest has ended the machine, which waits for {@link saveDisks} and {@link stop}. */
  #isOff = false;
  #end: MachineEnd | null = null;
  /** Settles when the last operation that was asked for has. */
  #lastOperation: Promise<unknown> = Promise.resolve();
  readonly #ended: Promise<MachineEnd>;

  private constructor(setup: MachineSetup, thread: DeviceThreadClient) {
    super();
    this.#setup = setup;
    this.#thread = thread;
    const { regions, disks, base } = setup;
    const written = disks.list.map(({ setup: { sizeBytes, written } }) => ({
      blocks: blocksOf(sizeBytes),
      written,
    }));
    this.#dirty = new DirtyPages(thread.machine, regions.slots, written, base !== null);
    if (base !== null) this.#dirty.commit(base.store, base.id);
    this.#bases = new SaveBases(this.#dirty, regions, disks);
    this.#ended = new Promise((resolve) => {
      thread.attach({
        onConsole: (bytes, missedBytes) => this.emit('console', bytes, missedBytes),
        onStall: (problem) => this.#stalled(problem),
        onPowerOff: () => this.#poweredOff(),
        onEnd: (ended) => {
          const failure = setup.lazyFill?.failure ?? null;
          const end = this.#withLosses(failure === null ? ended : { kind: 'failed', error: failure });
          this.#end = end;
          freeSetup(setup);
          resolve(end);
          this.emit('end', end);
        },
      });
    });
  }

  /**
   * Makes a machine that boots a kernel, paused before its first instruction.
   * @throws LivesnapError see {@link setUpBoot}
   */
  static async create(config: MachineConfig, options?: CreateOptions): Promise<Machine> {
    return Machine.#launch(await setUpBoot(config, options));
  }

  /**
   * Restores a snapshot, paused where it was saved. If its RAM is filled lazily, the machine ends when that fails.
   * @throws LivesnapError see {@link setUpRestore}; DAMAGED
   */
  static async restore(snapshot: OpenSnapshot, options: RestoreOptions): Promise<Machine> {
    return Machine.#launch(await setUpRestore(snapshot, options));
  }

  /** RAM is filled while the device thread loads its code. If it is filled lazily, that begins before the VM exists. */
  static async #launch({ setup, fill }: PreparedMachine): Promise<Machine> {
    const { config, regions, disks, nets } = setup;
    let thread: DeviceThreadClient | null = null;
    try {
      thread = DeviceThreadClient.start();
      const { list, engine, staging } = disks;
      await thread.begin({
        slots: regions.slots,
        cpus: config.cpus,
        devices: {
          vmgenid: config.vmgenid ?? true,
          rng: config.rng ?? true,
          disks: config.disks ?? [],
          nets: nets.configs,
          balloon: config.balloon,
        },
        disks: engine === null ? null : { disks: list.map((disk) => disk.setup), engine, staging: staging! },
        nets: nets.setups,
        holdsEnd: list.some(endsWithMachine),
        start: await fill(),
      });
      setup.lazyFill?.attach(thread.machine);
      if (setup.lazyFill?.failure) throw setup.lazyFill.failure; // it had failed before it was attached
      return new Machine(setup, thread);
    } catch (error) {
      // A fill that failed explains what the thread could not do.
      const failure = setup.lazyFill?.failure ?? error;
      await thread?.cancel();
      freeSetup(setup);
      throw failure;
    }
  }

  get config(): MachineConfig {
    return this.#setup.config;
  }

  get notices(): readonly string[] {
    return this.#setup.notices;
  }

  get nets(): readonly NetReport[] {
    return this.#setup.nets.reports;
  }

  get state(): MachineState {
    if (this.#end !== null) return 'stopped';
    return this.#isRunning ? 'running' : 'paused';
  }

  get end(): MachineEnd | null {
    return this.#end;
  }

  get snapshot(): string | null {
    return this.#dirty.last;
  }

  countDirtyBytes(): number | null {
    const { snapshot } = this;
    if (snapshot === null) return null;
    if (this.#end === null && !this.#isAtMoment)
      try {
        const pages = this.#dirty.count();
        if (pages === null) return null;
        this.#lastCount = { snapshot, bytes: pages * PAGE_BYTES };
      } catch (error) {
        // Native code may know of the end before this thread does.
        if (!isMachineGone(error)) throw error;
      }
    return this.#lastCount?.snapshot === snapshot ? this.#lastCount.bytes : null;
  }

  get problem(): string | null {
    return this.#problem;
  }

  get savedLabels(): Labels | undefined {
    return this.#setup.labels;
  }

  get savedConsole(): SavedConsole | null {
    return this.#setup.savedConsole;
  }

  writeConsole(bytes: Uint8Array): void {
    this.#thread.input(bytes);
  }

  pause(): Promise<void> {
    return this.#inTurn(() => this.#pause());
  }

  resume(): Promise<void> {
    return this.#inTurn(() => {
      this.#requireOn();
      return this.#resume();
    });
  }

  async pressPowerButton(): Promise<boolean> {
    return !this.#isOff && (await this.#thread.pressPowerButton());
  }

  async stop(): Promise<void> {
    this.#thread.stop();
    await this.#ended;
  }

  save(store: SaveTarget, options: MachineSaveOptions): Promise<MachineSaveResult> {
    return this.#inTurn(async () => {
      this.#requireOn();
      const startedMs = performance.now();
      const then = options.then ?? (this.#isRunning ? 'resume' : 'pause');
      const saved = await this.#withBases(store, (basesOf) => this.#saveFrom(store, basesOf, then, options));
      this.#dirty.commit(store.key, saved.id);
      if (then === 'stop') await this.stop();
      else if (then === 'resume') await this.#resumeUnlessEnded();
      return { ...saved, saveMs: round(performance.now() - startedMs) };
    });
  }

  get savesDisks(): boolean {
    return this.#end === null && this.#setup.disks.list.some(endsWithMachine);
  }

  saveDisks(
    withStore: WithStore,
    options: { vm: string; tags: readonly string[]; progress?: Progress },
  ): Promise<SaveResult | null> {
    return this.#inTurn(async () => {
      const wasRunning = this.#isRunning;
      await this.#pause();
      try {
        const isWritten = this.#setup.disks.list.some((disk) => endsWithMachine(disk) && !isUnwritten(disk));
        const saved = isWritten
          ? await withStore((store) =>
              this.#withBases(store, (basesOf) => this.#saveDisksTo(store, basesOf, options)),
            )
          : null;
        this.#areDisksSaved = true;
        return saved;
      } catch (error) {
        if (wasRunning && !this.#isOff) await this.#resumeUnlessEnded();
        throw error;
      }
    });
  }

  /** Saves relative to bases. If one is damaged, saves again without it; without any, if it is not known which. */
  async #withBases<T>(store: SaveTarget, save: (basesOf: BasesOf) => Promise<T>): Promise<T> {
    const damaged: SaveBase[] = [];
    const basesOf: BasesOf = (region) => this.#bases.of(store.key, region, damaged);
    for (;;) {
      try {
        return await save(basesOf);
      } catch (error) {
        const offered = this.#setup.regions.list.flatMap((_, region) => basesOf(region).bases);
        const { code, damage } = error instanceof LivesnapError ? error : {};
        if (code !== 'DAMAGED' || offered.length === 0) throw error;
        const found = offered.filter((base) => isSameBase(base, damage));
        damaged.push(...(found.length > 0 ? found : offered));
      }
    }
  }

  /** The machine is paused. */
  async #saveDisksTo(
    store: SaveTarget,
    basesOf: BasesOf,
    { vm, tags, progress }: { vm: string; tags: readonly string[]; progress?: Progress },
  ): Promise<SaveResult | null> {
    const { config, bootPath, regions, disks } = this.#setup;
    const indices = disks.list.flatMap((disk, i) => (endsWithMachine(disk) ? [i] : []));
    const firstDisk = regions.slots.length;
    const saved = indices.map((i) => basesOf(firstDisk + i));
    this.#dirty.begin();
    // The store says whether it still has the bases: a save that was removed since accounts for nothing.
    const session = await store.beginSave({ regions: saved, tags });
    try {
      const savedDisks = await Promise.all(
        indices.map(async (i, n) => ({
          sizeBytes: disks.list[i]!.config.sizeBytes,
          pending: await this.#pending(store.key, firstDisk + i, usedBase(saved, session, n)),
        })),
      );
      if (savedDisks.every(({ pending }, n) => session.bases[n] !== null && pending.isEmpty)) {
        await session.abort();
        return null;
      }
      const source = new DiskSource(savedDisks, 0, (n, blocks, into) =>
        this.#readBlocks(indices[n]!, blocks, into),
      );
      const list = indices.map((i) => regions.list[firstDisk + i]!);
      const totalBytes = savedDisks.reduce((sum, { pending }) => sum + pending.count() * PAGE_BYTES, 0);
      await session.store(
        { regions: list, sequential: list.map((_, n) => n), next: (into) => source.next(into) },
        (doneBytes) => progress?.(doneBytes, totalBytes),
      );
      return await session.commit({
        kind: 'disk',
        vm,
        tags,
        memoryBytes: 0,
        diskBytes: list.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
        machine: { config, bootPath } satisfies SavedMachine,
        host: this.#hostDescription(),
        state: new Uint8Array(0),
      });
    } catch (error) {
      await session.abort().catch(() => {});
      throw error;
    }
  }

  async #saveFrom(
    store: SaveTarget,
    basesOf: BasesOf,
    then: SaveThen,
    { vm, labels = {}, tags, progress, signal, console = () => NO_CONSOLE }: MachineSaveOptions,
  ): Promise<SaveResult & PauseResult & { storedWhilePausedBytes: number }> {
    const { config, bootPath, regions, disks, lazyFill } = this.#setup;
    const wasRunning = this.#isRunning;
    const resume = wasRunning && then === 'resume';
    let pause: PauseResult = { pauseMs: 0, pausePhases: null };
    let state: Uint8Array | null = null;
    const saved = regions.list.map((_, region) => basesOf(region));
    const session = await store.beginSave({ regions: saved, tags });
    try {
      const isFull = regions.slots.some((_, slot) => usedBase(saved, session, slot) === null);
      if (isFull) await lazyFill?.complete(signal);
      this.#dirty.begin();
      const pending = await unlessAborted(
        signal,
        Promise.all(saved.map((_, i) => this.#pending(store.key, i, usedBase(saved, session, i)))),
      );
      const source = new MachineSource({
        regions: regions.list,
        slots: regions.slots,
        disks: disks.list.map(({ config: { sizeBytes } }, i) => ({
          sizeBytes,
          pending: pending[regions.slots.length + i]!,
        })),
        pendingRam: pending.slice(0, regions.slots.length),
        harvest: () => this.#dirty.harvest(),
        readBlocks: (disk, blocks, into) => unlessAborted(signal, this.#readBlocks(disk, blocks, into)),
        capture: async (options) => {
          const moment = await this.#takeMoment(options, resume, console);
          const { written, captured, pauseMs, phases } = moment;
          if (wasRunning) pause = { pauseMs: round(pauseMs), pausePhases: rounded(phases) };
          if (captured !== null) state = encodeMachineState({ ...captured.state, console: moment.console });
          return { written: written.map(BitSet.from), aside: captured?.aside ?? null };
        },
      });
      await session.store(signal === undefined ? source : cancellable(source, signal), (doneBytes) =>
        progress?.(doneBytes, source.expectedBytes),
      );
      signal?.throwIfAborted();
      const result = await session.commit({
        kind: 'machine',
        vm,
        tags,
        memoryBytes: config.memoryBytes,
        diskBytes: totalDiskBytes(disks.configs),
        machine: {
          ...{ config, bootPath },
          ...(Object.keys(labels).length === 0 ? {} : { labels }),
          ...(wasRunning ? { pauseMs: pause.pauseMs } : {}),
        } satisfies SavedMachine,
        host: this.#hostDescription(),
        state: state!,
      });
      const { storedWhilePausedBytes } = source;
      return { ...result, ...pause, storedWhilePausedBytes };
    } catch (error) {
      try {
        // A failed save leaves the machine as it was. The guest does not wait for the store to give the save up.
        if (wasRunning) await this.#resumeUnlessEnded();
      } finally {
        // The failure of the save is reported, not that of its clean-up: gc deletes what that leaves behind.
        await session.abort().catch(() => {});
      }
      throw error;
    } finally {
      if (disks.list.length > 0) await this.#thread.thawDisks().catch(() => {}); // an ended machine keeps nothing
    }
  }

  /** The machine is afterwards as `resume` says, and paused if nothing was captured or it failed. */
  async #takeMoment({ pending, late, room }: MomentOptions, resume: boolean, console: () => SavedConsole) {
    const wasRunning = this.#isRunning;
    this.#isRunning = false;
    const request = { pending: pending.map(bytesOf), late: late.map(bytesOf), room, resume };
    this.#isAtMoment = true;
    let moment: Awaited<ReturnType<DeviceThreadClient['moment']>>;
    try {
      moment = await this.#thread.moment(request, console);
      this.#dirty.add(moment.written.map(BitSet.from));
    } finally {
      this.#isAtMoment = false;
    }
    this.#requireOn();
    if (moment.captured !== null && resume) {
      this.#isRunning = true;
      if (wasRunning) this.#problem = null;
    }
    return moment;
  }

  #hostDescription(): object {
    return describeSavingHost(profileOfThisHost(), { hostname: hostname(), arch: arch() });
  }

  #pending(key: string, region: number, base: SaveBase | null): Promise<BitSet> {
    return this.#bases.pending(key, region, base, (disk) => this.#findFileData(disk));
  }

  async #findFileData(disk: number): Promise<BitSet> {
    const found = new BitSet(blocksOf(this.#setup.disks.list[disk]!.config.sizeBytes));
    const { bytes } = found;
    const memory = createMemory(Math.ceil(bytes.length / PAGE_BYTES) * PAGE_BYTES);
    try {
      await this.#thread.findData(disk, { memory, offset: 0, length: bytes.length });
      readMemory(memory, 0, bytes);
    } finally {
      closeMemory(memory);
    }
    return found;
  }

  async #readBlocks(disk: number, blocks: Uint32Array, into: Uint8Array): Promise<void> {
    const { staging, list } = this.#setup.disks;
    // One that a cancelled save has left behind may still write to the staging memory.
    await this.#lastRead;
    const read = this.#thread.readBlocks(disk, blocks);
    this.#lastRead = read.catch(() => {});
    await read;
    if (this.#end !== null) throw machineGone(this.#end);
    readMemory(staging!, 0, into);
    const last = blocks[blocks.length - 1]!;
    const tail = list[disk]!.config.sizeBytes - last * PAGE_BYTES;
    if (tail < PAGE_BYTES) into.fill(0, into.length - PAGE_BYTES + tail);
  }

  /**
   * The main thread pauses the machine, because only it knows which operations are in progress. Requests that fail until
   * then are no problems of their own.
   */
  #stalled(problem: string): void {
    this.#problem = problem;
    if (this.#isStalling) return;
    this.#isStalling = true;
    this.#inTurn(async () => {
      this.#isStalling = false;
      await this.#pause();
      // A save in progress may have resumed the machine meanwhile.
      this.#problem ??= problem;
      this.emit('problem', this.#problem);
    }).catch(() => {}); // the machine has ended
  }

  /** If the machine failed before its disks could be saved, the reason names those whose writes are lost with it. */
  #withLosses(end: MachineEnd): MachineEnd {
    if (end.kind !== 'failed' || this.#areDisksSaved) return end;
    const lost = this.#setup.disks.list.filter((disk) => endsWithMachine(disk) && !isUnwritten(disk));
    if (lost.length === 0) return end;
    const { code, message, hint } = end.error;
    const names = lost.map(({ config }) => config.name).join(' and ');
    const sentence = `${message}; what the guest wrote to ${names} since the last save is lost`;
    return {
      kind: 'failed',
      error: new LivesnapError(code, sentence, {
        cause: end.error,
        ...(hint === undefined ? {} : { hint }),
      }),
    };
  }

  #poweredOff(): void {
    this.#isRunning = false;
    this.#isOff = true;
    if (this.listenerCount('poweredOff') === 0) this.#thread.stop();
    else this.emit('poweredOff');
  }

  #requireOn(): void {
    if (this.#isOff)
      throw new LivesnapError(
        'NOT_POSSIBLE_NOW',
        'the guest has ended the machine, and its disks are not saved yet',
        { hint: 'livesnap stop saves the disks; with --discard it ends the machine without.' },
      );
  }

  async #pause(): Promise<void> {
    if (!this.#isRunning) return;
    await this.#thread.pause();
    this.#isRunning = false;
  }

  async #resume(): Promise<void> {
    if (this.#isRunning || this.#isOff) return;
    this.#problem = null;
    await this.#thread.resume();
    this.#isRunning = true;
    this.#areDisksSaved = false;
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

/** A source that fails with the reason of `signal` once that is aborted. */
const cancellable = (source: PageSource, signal: AbortSignal): PageSource => ({
  get regions() {
    return source.regions;
  },
  ...(source.sequential === undefined ? {} : { sequential: source.sequential }),
  async next(into) {
    signal.throwIfAborted();
    return source.next(into);
  },
});

const bytesOf = ({ bytes }: BitSet): Uint8Array => bytes;

const round = (ms: number): number => Math.round(ms * 1000) / 1000;

const rounded = ({ parkMs, harvestMs, copyMs, drainMs, stateMs, resumeMs }: PausePhases): PausePhases => ({
  parkMs: round(parkMs),
  harvestMs: round(harvestMs),
  copyMs: round(copyMs),
  drainMs: round(drainMs),
  stateMs: round(stateMs),
  resumeMs: round(resumeMs),
});
