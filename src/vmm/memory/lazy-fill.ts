/**
 * The RAM of a machine that runs before all of it is filled. Native threads fill it (native/memory-fill.ts): first what the
 * guest, the devices and the host wait for, then the working set of the snapshot, then the rest.
 *
 * Thread: the main thread, which never waits for a page.
 *
 * Invariants:
 * - The regions of the snapshot stay open, and pinned in the store, until the fill has ended.
 * - A page of RAM that is a hole is not zero until {@link complete} has resolved. A save in full awaits that first.
 * - If a page cannot be filled, the machine is halted before anybody sees zeros, and it ends with {@link failure}.
 */
import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import { LivesnapError } from '../../errors.js';
import type { KvmMachine } from '../../native/kvm.js';
import { type FillError, lazyFillErrno, MemoryFill } from '../../native/memory-fill.js';
import { type OpenRegion, type OpenSnapshot, PAGE_BYTES, type Region } from '../../page-stream.js';
import { unlessAborted } from '../../unless-aborted.js';
import type { MemorySlot } from '../kvm/vm.js';
import { joined, type WorkingSet, type WorkingSets } from './working-set.js';

/**
 * When RAM is filled: `eager` before the machine runs, `lazy` while it runs. Where a host does not allow the latter,
 * RAM is filled before. With `lazy` a notice says so; `auto` is the same without it.
 */
export type RestoreFill = 'auto' | 'lazy' | 'eager';

/** Why this host restores all of RAM before a machine runs; null: it need not. */
export function lazyObstacle(): string | null {
  const errno = lazyFillErrno();
  if (errno === null) return null;
  const name = getSystemErrorMap().get(-errno)?.[0] ?? `errno ${errno}`;
  const isForbidden = errno === constants.errno.EPERM || errno === constants.errno.EACCES;
  const remedy = isForbidden
    ? 'to allow it: sysctl vm.unprivileged_userfaultfd=1, or a udev rule such as KERNEL=="userfaultfd", GROUP="kvm", MODE="0660"'
    : 'the kernel needs CONFIG_USERFAULTFD, and a container must allow userfaultfd(2)';
  return `all of RAM was filled before the machine ran, because this user may not serve page faults of a guest (userfaultfd: ${name}); ${remedy}`;
}

export class LazyFill {
  readonly #snapshot: string;
  /** Of the regions. */
  readonly #names: readonly string[];
  readonly #slots: readonly MemorySlot[];
  readonly #regions: readonly OpenRegion[];
  readonly #fill: MemoryFill;
  readonly #sets: WorkingSets | null;
  readonly #wanted: WorkingSet;
  /** Settles when the fill has ended, and its regions are closed. */
  readonly #ended: Promise<void>;
  #isComplete = false;
  #isOpen = true;
  #failure: LivesnapError | null = null;

  private constructor(
    snapshot: string,
    names: readonly string[],
    slots: readonly MemorySlot[],
    regions: readonly OpenRegion[],
    sets: WorkingSets | null,
    wanted: WorkingSet,
  ) {
    this.#sets = sets;
    this.#wanted = wanted;
    this.#snapshot = snapshot;
    this.#slots = slots;
    this.#regions = regions;
    this.#names = names;
    const pairs = regions.map(({ reader }, slot) => ({ reader, memory: slots[slot]!.memory }));
    this.#fill = new MemoryFill(pairs, { lazy: true, wanted });
    this.#ended = this.#fill.ended.then(() => this.#close());
  }

  /**
   * Starts to fill the slots, which are zero, from the first regions of a snapshot. `sets`: where the working set is.
   * Errors: those of openRegion; SystemError where {@link lazyObstacle} says why not.
   */
  static async start(
    snapshot: OpenSnapshot,
    regions: readonly Region[],
    slots: readonly MemorySlot[],
    sets: WorkingSets | null = null,
  ): Promise<LazyFill> {
    const opened: OpenRegion[] = [];
    try {
      const reading = sets?.read(snapshot.summary.id);
      const names = slots.map((_, slot) => regions[slot]!.name);
      for (const name of names) opened.push(await snapshot.openRegion(name));
      const wanted = (await reading) ?? new Uint32Array(0);
      return new LazyFill(snapshot.summary.id, names, slots, opened, sets, wanted);
    } catch (error) {
      for (const region of opened) region.close();
      throw error;
    }
  }

  /** The machine, which has not run, is halted if the fill fails or has failed, and its end ends the fill. */
  attach(machine: KvmMachine): void {
    if (this.#isOpen) this.#fill.attach(machine);
  }

  /** Why the machine has to end; null: the fill has not failed. */
  get failure(): LivesnapError | null {
    if (this.#isOpen && this.#failure === null) {
      const { error } = this.#fill;
      if (error !== null) this.#failure = this.#describe(error);
    }
    return this.#failure;
  }

  /**
   * Resolves when every page that is not zero is in place. It does not wait at the normal pace. Errors: MACHINE_GONE when
   * the fill cannot end, as the machine has; the reason of `signal`.
   */
  async complete(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.#isOpen) this.#fill.hurry();
    await unlessAborted(signal, this.#ended);
    if (!this.#isComplete) throw new LivesnapError('MACHINE_GONE', 'the machine has ended');
  }

  /** The machine has ended, or was not made. */
  stop(): void {
    this.#close();
  }

  /** Lets the store go. */
  #close(): void {
    if (!this.#isOpen) return;
    this.#failure = this.failure;
    this.#isComplete = this.#fill.isComplete;
    this.#isOpen = false;
    const set = this.#isComplete ? joined(this.#wanted, this.#fill.faults) : null;
    if (set !== null) void this.#sets?.keep(this.#snapshot, set);
    const { ended } = this.#fill;
    this.#fill.close();
    // Its threads may still read.
    void ended.then(() => {
      for (const region of this.#regions) region.close();
    });
  }

  #describe({ errno, file, offset, why, pair, pageOffset }: FillError): LivesnapError {
    const { EBADMSG, EIO, EOPNOTSUPP } = constants.errno;
    const place = offset === null ? file : `${file} at offset ${offset}`;
    const address = pageOffset === null ? null : `0x${(this.#slots[pair]!.gpa + pageOffset).toString(16)}`;
    const page = address === null ? 'RAM' : `the page of RAM at ${address}`;
    if (file === '')
      return new LivesnapError('SYSTEM', `${page} could not be filled: ${why} failed with errno ${errno}`, {
        hint: 'Free memory on this host, and restore again.',
      });
    const what = `${page} is missing, since it cannot be read from snapshot ${this.#snapshot}: ${place}: ${why}`;
    if (errno === EBADMSG || errno === EIO)
      return new LivesnapError('DAMAGED', what, {
        hint: 'livesnap check --read-data lists all damage; livesnap repair heals it where it can. Then restore again.',
        damage: {
          ...{ file, offset, snapshot: this.#snapshot, region: this.#names[pair]! },
          ...{ fromBytes: pageOffset, toBytes: pageOffset === null ? null : pageOffset + PAGE_BYTES },
        },
      });
    if (errno === EOPNOTSUPP)
      return new LivesnapError('NEWER_FORMAT', what, { hint: 'Update livesnap on this host.' });
    return new LivesnapError('SYSTEM', what, {
      hint: 'Keep the store mounted and readable while a machine is restored, or use restore --eager.',
    });
  }
}
