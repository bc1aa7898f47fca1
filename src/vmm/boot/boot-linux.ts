/**
 * Reads a kernel and an initrd, and puts them into guest memory with everything the Linux boot protocol asks for.
 *
 * Invariant: all that can be wrong with the files, or with the memory they are to fit in, is found by
 * {@link readBoot}, before a machine exists; {@link BootPlan.load} only copies.
 */
import type { BootPath, BootState } from './boot-state.js';
import type { GuestMemory } from './guest-memory.js';
import type { RamSlot } from './memory-layout.js';

export interface BootConfig {
  /** A bzImage or an ELF vmlinux. */
  readonly kernelPath: string;
  readonly initrdPath: string | null;
  readonly cmdline: string;
  readonly memoryBytes: number;
  /** 1 to {@link MAX_CPUS}. */
  readonly cpus: number;
  /** Handed to the guest as SETUP_RNG_SEED; empty: none. */
  readonly rngSeed: Uint8Array;
}

export interface BootPlan {
  readonly path: BootPath;
  /** The slots that `load`'s memory must have. */
  readonly layout: readonly RamSlot[];
  /** Fills fresh (zeroed) memory. Called once; frees what was read from the files. */
  load(memory: GuestMemory): BootState;
}

export type ReadBoot = (config: BootConfig) => BootPlan;
