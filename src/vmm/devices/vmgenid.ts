/**
 * The VM generation ID: 16 bytes of guest memory that differ after every restore. A guest that is told of the change
 * gives its random number generator a new seed, so that two copies of one machine do not draw the same numbers.
 * Microsoft, "Virtual Machine Generation ID". The interrupt is one of the Generic Event Device: ACPI 6.5, section 5.6.9.
 *
 * Thread: the device thread.
 *
 * Invariants:
 * - A restored machine has its new ID before a vCPU runs, and is interrupted after that.
 * - A machine that was paused or saved and continues keeps its ID, and is not interrupted.
 *
 * Not emulated: registers. The interrupt has this one meaning, so the DSDT need not ask for its reason.
 */
import { randomBytes } from 'node:crypto';
import { base64 } from '../../schema.js';
import type {
  AccessSize,
  Device,
  DeviceDescriptor,
  DeviceParts,
  DeviceState,
  EdgeIrq,
  Pausable,
  RegisterRange,
} from './device.js';
import { decodeBytes, deviceState, encodeBytes } from './device-state.js';
import { GENERATION_ID_GPA, GENERATION_IRQ } from './ports.js';

const ID_BYTES = 16;

const DEVICE = 'vmgenid';
const VERSION = 1;

export interface VmGenIdState extends DeviceState {
  /** The ID that the machine had when it was saved, in base64. No restored machine has it. */
  readonly id: string;
}

const STATE = deviceState<VmGenIdState>(DEVICE, VERSION, { id: base64(ID_BYTES) });

export class VmGenId implements Device<VmGenIdState>, Pausable {
  readonly ranges: readonly RegisterRange[] = [];
  readonly widthBytes = 1;
  readonly pausable = this;
  readonly isIdle = true;
  readonly #irq: EdgeIrq;
  readonly #id: Uint8Array;
  /** Whether the guest is still to be told of its new ID. */
  #isUntold: boolean;

  /** @param previous the ID that the guest knows; null for a guest that has not started */
  constructor(parts: Pick<DeviceParts, 'memory' | 'edgeIrq'>, previous: Uint8Array | null) {
    this.#irq = parts.edgeIrq(GENERATION_IRQ);
    this.#isUntold = previous !== null;
    do this.#id = randomBytes(ID_BYTES);
    while (previous !== null && Buffer.compare(this.#id, previous) === 0);
    parts.memory.write(GENERATION_ID_GPA, this.#id);
  }

  suspend(): void {}

  freeze(): void {}

  resume(): void {
    if (!this.#isUntold) return;
    this.#isUntold = false;
    this.#irq.pulse();
  }

  save(): VmGenIdState {
    return { device: DEVICE, version: VERSION, id: encodeBytes(this.#id) };
  }

  read(_offset: number, _size: AccessSize): number {
    return 0;
  }

  write(_offset: number, _size: AccessSize, _value: number): void {}
}

export const generationId: DeviceDescriptor<VmGenId, VmGenIdState> = {
  name: 'vmgenid',
  bus: 'mmio',
  base: GENERATION_ID_GPA,
  state: STATE,
  create: (parts) => new VmGenId(parts, null),
  restore: (parts, { id }) => new VmGenId(parts, decodeBytes(id)),
};
