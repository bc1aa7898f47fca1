/** A kernel that is ready to be loaded, from a bzImage or an ELF file. */
import type { BootPath } from './boot-state.js';
import type { LoadSegment } from './elf-image.js';

export interface KernelImage {
  readonly path: BootPath;
  /** Guest-physical address of the first instruction, 64-bit mode. */
  readonly entry: number;
  readonly segments: readonly LoadSegment[];
  /** First address after the memory that the kernel uses before it has read the memory map. */
  readonly endGpa: number;
  /** The setup header of a bzImage, from `setup_sects` to its end; null for an ELF file, which has none. */
  readonly setupHeader: Buffer | null;
  /** The highest address that any byte of the initrd may have. */
  readonly initrdAddrMax: number;
  /** Without the terminating NUL. */
  readonly cmdlineMaxBytes: number;
}
