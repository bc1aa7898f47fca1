/**
 * Reads a bzImage: its setup header, and its kernel. The host unpacks a payload in gzip or LZ4; any other kernel is
 * loaded packed and unpacks itself. Linux boot protocol (Documentation/arch/x86/boot.rst), sections "The Real-Mode
 * Kernel Header" and "64-bit Boot Protocol".
 *
 * Invariants:
 * - Every range that the header names lies within the file, except for up to 15 bytes by which `syssize` is rounded up.
 * - `init_size` bytes from the preferred address are RAM.
 */
import { SETUP_HEADER_MAGIC, SetupHeader } from './boot-params.js';
import { readElf } from './elf-image.js';
import { hex, type Image, ImageBytes } from './image-file.js';
import type { KernelImage } from './kernel-image.js';
import { payloadFormat, unpackPayload } from './kernel-payload.js';
import { HIGH_MEMORY_START, kernelLimit } from './memory-layout.js';

const SECTOR_BYTES = 512;
const SYSSIZE_UNIT_BYTES = 16;
/** Enough of the file for every header that fits in struct boot_params. */
const HEAD_BYTES = 0x290;
const BOOT_FLAG = 0xaa55;
/** The first version with `xloadflags` (Linux 3.8). */
const MIN_VERSION = 0x020c;
const LOADED_HIGH = 1;
const XLF_KERNEL_64 = 1;
/** The number of setup sectors that 0 stands for, in very old kernels. */
const DEFAULT_SETUP_SECTS = 4;
/** From the start of the protected-mode kernel to its 64-bit entry. */
const ENTRY_64_OFFSET = 0x200;

export const isBzImage = (head: Buffer): boolean =>
  head.length >= SetupHeader.header + 4 &&
  head.readUInt16LE(SetupHeader.bootFlag) === BOOT_FLAG &&
  head.readUInt32LE(SetupHeader.header) === SETUP_HEADER_MAGIC;

/**
 * @param ramEnd first address after the RAM that the kernel may use
 * @throws LivesnapError BAD_IMAGE
 */
export function readBzImage(image: Image, ramEnd: number): KernelImage {
  const head = image.read(0, HEAD_BYTES, 'the setup header');
  checkVersion(image, head);
  const setupHeader = copySetupHeader(image, head);
  const kernelOffset = ((head[SetupHeader.setupSects]! || DEFAULT_SETUP_SECTS) + 1) * SECTOR_BYTES;
  const kernelBytes = head.readUInt32LE(SetupHeader.syssize) * SYSSIZE_UNIT_BYTES;
  const prefAddress = head.readBigUInt64LE(SetupHeader.prefAddress);
  const initSizeBytes = head.readUInt32LE(SetupHeader.initSize);
  if (prefAddress < BigInt(HIGH_MEMORY_START)) {
    throw image.bad(SetupHeader.prefAddress, `the kernel's load address ${hex(prefAddress)} is below 1 MiB`);
  }
  const end = prefAddress + BigInt(initSizeBytes);
  if (end > BigInt(ramEnd)) {
    const { limit, hint } = kernelLimit(end, ramEnd);
    throw image.bad(
      SetupHeader.initSize,
      `the kernel needs ${initSizeBytes} bytes at address ${hex(prefAddress)}, which do not fit in memory: ${limit}`,
      hint,
    );
  }
  if (kernelBytes > initSizeBytes) {
    throw image.bad(
      SetupHeader.syssize,
      `the kernel has ${kernelBytes} bytes, more than its own init_size of ${initSizeBytes}`,
    );
  }
  const payload = findPayload(image, head, kernelBytes);
  // syssize counts units of 16 bytes, and not every build pads its file to one. The missing bytes stay zero.
  const presentBytes = image.sizeBytes - kernelOffset;
  const isRounded = presentBytes >= payload.end && presentBytes > kernelBytes - SYSSIZE_UNIT_BYTES;
  const kernel = image.read(
    kernelOffset,
    isRounded ? Math.min(kernelBytes, presentBytes) : kernelBytes,
    'the kernel',
  );
  const payloadBytes = kernel.subarray(payload.offset, payload.end);
  const common = {
    setupHeader,
    endGpa: Number(prefAddress) + initSizeBytes,
    initrdAddrMax: head.readUInt32LE(SetupHeader.initrdAddrMax),
    cmdlineMaxBytes: head.readUInt32LE(SetupHeader.cmdlineSize),
  };
  const format = payloadFormat(payloadBytes);
  if (format === null) {
    if (kernel.length <= ENTRY_64_OFFSET) {
      throw image.bad(
        SetupHeader.syssize,
        `a kernel of ${kernel.length} bytes has no 64-bit entry at ${hex(ENTRY_64_OFFSET)}`,
      );
    }
    const gpa = Number(prefAddress);
    return {
      ...common,
      path: 'bzimage own entry',
      entry: gpa + ENTRY_64_OFFSET,
      segments: [{ gpa, sizeBytes: initSizeBytes, bytes: kernel }],
    };
  }
  // The kernel unpacks itself in place, so its unpacked size never exceeds init_size.
  const elf = unpackPayload(format, payloadBytes, image, kernelOffset + payload.offset, initSizeBytes);
  const { entry, segments } = readElf(new ImageBytes(`${image.name} (its ${format} payload)`, elf), ramEnd);
  const elfEnd = segments.reduce((end, segment) => Math.max(end, segment.gpa + segment.sizeBytes), 0);
  return {
    ...common,
    endGpa: Math.max(common.endGpa, elfEnd),
    path: `bzimage payload (${format})`,
    entry,
    segments,
  };
}

function checkVersion(image: Image, head: Buffer): void {
  const version = head.readUInt16LE(SetupHeader.version);
  if (version < MIN_VERSION) {
    throw image.bad(
      SetupHeader.version,
      `this kernel has boot protocol ${version >> 8}.${String(version & 0xff).padStart(2, '0')}; livesnap needs 2.12 or later`,
      'Use Linux 3.8 or newer.',
    );
  }
  if ((head.readUInt16LE(SetupHeader.xloadflags) & XLF_KERNEL_64) === 0) {
    throw image.bad(
      SetupHeader.xloadflags,
      'this kernel has no 64-bit entry',
      'Give a kernel built for x86-64.',
    );
  }
  if ((head[SetupHeader.loadflags]! & LOADED_HIGH) === 0) {
    throw image.bad(
      SetupHeader.loadflags,
      'this kernel is a zImage, which is loaded below 1 MiB',
      'Give a bzImage.',
    );
  }
}

/** The jump over the header gives its length: it ends at 0x202 plus the byte at 0x201. */
function copySetupHeader(image: Image, head: Buffer): Buffer {
  const end = SetupHeader.header + head[SetupHeader.jump + 1]!;
  if (end < SetupHeader.end || end > HEAD_BYTES) {
    throw image.bad(
      SetupHeader.jump + 1,
      `the setup header ends at ${hex(end)}, not from ${hex(SetupHeader.end)} to ${hex(HEAD_BYTES)}`,
    );
  }
  return Buffer.from(head.subarray(SetupHeader.start, end));
}

/** The place of the payload in the kernel; empty for a kernel without one. */
function findPayload(image: Image, head: Buffer, kernelBytes: number): { offset: number; end: number } {
  const offset = head.readUInt32LE(SetupHeader.payloadOffset);
  const length = head.readUInt32LE(SetupHeader.payloadLength);
  if (offset + length > kernelBytes) {
    throw image.bad(
      SetupHeader.payloadOffset,
      `a payload of ${length} bytes at ${hex(offset)} extends beyond the kernel's ${kernelBytes} bytes`,
    );
  }
  return length === 0 ? { offset: 0, end: 0 } : { offset, end: offset + length };
}
