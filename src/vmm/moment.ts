/**
 * The moment of a save on the device thread: from the request to pause until the guest continues. The save gets pages,
 * blocks and state of one instant.
 *
 * Thread: the device thread. It waits for no disk, hash or database.
 *
 * Steps: the vCPUs park; {@link Moment.parked}; the devices end their requests or are frozen; {@link Moment.capture}.
 */
import { BitSet } from '../bit-set.js';
import type { KvmMachine } from '../native/kvm.js';
import type { MemorySlot } from './kvm/vm.js';
import type { SavedMachineState } from './machine-state.js';
import type { PausePhases } from './machine-types.js';
import { harvestDisks, harvestGuest, harvestRam, type WrittenBlocks } from './memory/harvest.js';
import { type AsidePart, MomentPages } from './memory/moment-pages.js';

/** What a save asks for. Sets are the bytes of a BitSet. */
export interface MomentRequest {
  /** The pages of each slot that the save has not stored. */
  readonly pending: readonly Uint8Array[];
  /** The blocks of each disk that the save will read as they are at the moment. Those written since the harvest join them. */
  readonly late: readonly Uint8Array[];
  /** Memory for copies of pages. */
  readonly room: SharedArrayBuffer;
  /** Whether the machine continues. */
  readonly resume: boolean;
}

export interface MomentReply {
  /** What was written since the last harvest, by region: the slots, then the disks. */
  readonly written: readonly Uint8Array[];
  /** Null: too many pages to copy, or the guest has ended the machine. The machine is paused, and nothing is captured. */
  readonly captured: {
    readonly aside: readonly AsidePart[];
    /** Without the console, which the main thread has. */
    readonly state: SavedMachineState;
  } | null;
  /** Since the pause began. */
  readonly pauseMs: number;
  readonly phases: PausePhases;
}

export interface MomentParts {
  readonly machine: KvmMachine;
  readonly slots: readonly MemorySlot[];
  readonly disks: readonly WrittenBlocks[];
}

export class Moment {
  readonly #request: MomentRequest;
  readonly #parts: MomentParts;
  readonly #pages: MomentPages;
  readonly #phases = { parkMs: 0, harvestMs: 0, copyMs: 0, drainMs: 0, stateMs: 0, resumeMs: 0 };
  #written: readonly BitSet[] = [];
  #lastMs = performance.now();

  constructor(request: MomentRequest, parts: MomentParts) {
    this.#request = request;
    this.#parts = parts;
    this.#pages = new MomentPages(parts.slots, request.pending.map(BitSet.from), request.room);
  }

  get resumes(): boolean {
    return this.#request.resume;
  }

  /** The vCPUs are parked. Devices may still write. */
  parked(): void {
    this.#ended('parkMs');
    const { machine, slots } = this.#parts;
    this.#written = harvestGuest(machine, slots);
    this.#ended('harvestMs');
    this.#pages.copy(this.#written);
    this.#ended('copyMs');
  }

  /**
   * The devices are frozen.
   * @param mayCapture false: nothing is captured
   * @param state reads the state of the vCPUs and the devices
   * @param proceed keeps these blocks of the disks as they are, and lets the vCPUs continue
   */
  capture(
    mayCapture: boolean,
    state: () => SavedMachineState,
    proceed: (frozen: readonly BitSet[]) => void,
  ): Omit<MomentReply, 'pauseMs'> {
    this.#ended('drainMs');
    const { slots, disks } = this.#parts;
    const ram = harvestRam(slots);
    const blocks = harvestDisks(disks);
    this.#written.forEach((written, slot) => {
      written.addAll(ram[slot]!);
    });
    const written = [...this.#written, ...blocks].map(({ bytes }) => bytes);
    this.#ended('harvestMs');
    this.#pages.copy(ram);
    this.#ended('copyMs');
    const { aside } = this.#pages;
    if (aside === null || !mayCapture) return { written, captured: null, phases: this.#phases };
    const captured = { aside, state: state() };
    this.#ended('stateMs');
    const frozen = this.#request.late.map((bytes, disk) => {
      const late = BitSet.from(bytes);
      late.addAll(blocks[disk]!);
      return late;
    });
    proceed(frozen);
    this.#ended('resumeMs');
    return { written, captured, phases: this.#phases };
  }

  #ended(phase: keyof PausePhases): void {
    const nowMs = performance.now();
    this.#phases[phase] += nowMs - this.#lastMs;
    this.#lastMs = nowMs;
  }
}
