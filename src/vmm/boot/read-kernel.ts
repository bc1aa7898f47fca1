/** Reads a kernel file, which is a bzImage or an ELF vmlinux. */
import { LivesnapError } from '../../errors.js';
import { isBzImage, readBzImage } from './bzimage.js';
import { isElf, readElf } from './elf-image.js';
import { ImageFile } from './image-file.js';
import type { KernelImage } from './kernel-image.js';

/** The values of every 64-bit Linux since 2.6.22. An ELF file does not hold them. */
const LINUX_INITRD_ADDR_MAX = 0x7fff_ffff;
const LINUX_CMDLINE_MAX_BYTES = 2047;

/**
 * Reads and checks a bzImage or an ELF vmlinux.
 * @param ramEnd first address after the RAM that the kernel may use
 * @throws LivesnapError NO_SUCH_FILE, BAD_IMAGE
 */
export function readKernel(path: string, ramEnd: number): KernelImage {
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
