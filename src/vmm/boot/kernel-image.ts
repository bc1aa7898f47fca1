/**
 * A kernel ready to be loaded, whichever kind of file it came from.
 */
import { LivesnapError } from '../../errors.js';
import type { BootPath } from './boot-state.js';
import { isBzImage, readBzImage } from './bzimage.js';
import { isElf, type LoadSegment, readElf } from './elf-image.js';
import { ImageFile } from './image-file.js';

export interface KernelImage {
  readonly path: BootPath;
  /** Guest-physical address of the first instruction, 64-bit mode. */
  readonly entry: number;
  readonly segments: readonly LoadSegment[];
  /** First address after all that the kernel needs before it knows its own memory. */
  readonly endGpa: number;
  /** A bzImage's setup header, from `setup_sects` to its end; null for an ELF file, which has none. */
  readonly setupHeader: Buffer | null;
  /** The highest address that any byte of the initrd may have. */
  readonly initrdAddrMax: number;
  /** Without the terminating zero. */
  readonly cmdlineMaxBytes: number;
}

/** What every 64-bit Linux since 2.6.22 puts in its setup header; an ELF file does not say. */
const LINUX_INITRD_ADDR_MAX = 0x7fff_ffff;
const LINUX_CMDLINE_MAX_BYTES = 2047;

/**
 * Reads and checks a bzImage or an ELF vmlinux.
 * @param ramEnd first address after the RAM that the kernel may lie in
 * @throws LivesnapError NO_SUCH_FILE, BAD_IMAGE
 */
export function readKernelImage(path: string, ramEnd: number): KernelImage {
  const file = ImageFile.open(path, 'kernel');
  try {
    const head = file.head(0x206);
    if (isElf(head)) {
      const { entry, segments } = readElf(file, ramEnd);
      return {
        path: 'elf',
        entry,
        segments,
        endGpa: segments.reduce((end, segment) => Math.max(end, segment.gpa + segment.sizeBytes), 0),
        setupHeader: null,
        initrdAddrMax: LINUX_INITRD_ADDR_MAX,
        cmdlineMaxBytes: LINUX_CMDLINE_MAX_BYTES,
      };
    }
    if (isBzImage(head)) return readBzImage(file, ramEnd);
    throw new LivesnapError('BAD_IMAGE', `${path} is neither a bzImage nor an ELF kernel`, {
      hint: 'Give a bzImage (often called vmlinuz) or an uncompressed vmlinux, built for x86-64.',
    });
  } finally {
    file.close();
  }
}
