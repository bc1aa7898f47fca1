/**
 * Guest RAM as the loader sees it: bytes go in, nothing comes out.
 *
 * Invariant: a write lies within one slot; the implementation checks it, whatever the loader computed.
 */
import type { RamSlot } from './memory-layout.js';

export interface GuestMemory {
  /** Ascending by address, without overlap. */
  readonly layout: readonly RamSlot[];
  /** Copies `bytes` to guest-physical address `gpa`; throws if any of them lies outside RAM. */
  write(gpa: number, bytes: Uint8Array): void;
}
