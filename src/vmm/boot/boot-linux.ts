/**
 * Reads a kernel and an initrd, and loads them into guest memory with everything else that the Linux boot protocol
 * requires (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").
 *
 * Invariant: {@link readBoot} checks the files and the memory size before a machine exists; {@link BootPlan.load} only
 * copies.
 */
import { LivesnapError } from '../../errors.js';
import { PAGE_BYTES } from '../../page-stream.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { type VirtioWindow, windowOptions } from '../virtio/windows.js';
import { acpiTables } from './acpi-tables.js';
import { bootParams, rngSeedSetupData } from './boot-params.js';
import { type BootPath, type BootState, bootGdt, bootPageTables, bootState } from './boot-state.js';
import type { LoadSegment } from './elf-image.js';
import { hex, ImageFile } from './image-file.js';
import { MAX_CPUS } from './interrupt-wiring.js';
import type { KernelImage } from './kernel-image.js';
import { withKernelOptions } from './kernel-options.js';
import {
  e820,
  HOLE_START,
  LowMemory,
  lowRamEnd,
  moreMemory,
  type RamSlot,
  ramLayout,
} from './memory-layout.js';
import { mpFloatingPointer, mpTable } from './mp-table.js';
import { readKernel } from './read-kernel.js';

export interface BootConfig {
  /** A bzImage or an ELF vmlinux. */
  readonly kernelPath: string;
  readonly initrdPath: string | null;
  readonly cmdline: string;
  readonly memoryBytes: number;
  /** 1 to {@link MAX_CPUS}. */
  readonly cpus: number;
  /** Passed to the guest as SETUP_RNG_SEED: at most 4096 bytes; empty for none. */
  readonly rngSeed: Uint8Array;
  /** The virtio devices that the firmware tables and the command line tell the guest of. */
  readonly windows: readonly VirtioWindow[];
  /** Whether there is a VM generation ID, which the ACPI tables tell the guest of. */
  readonly vmgenid: boolean;
}

export interface BootPlan {
  readonly path: BootPath;
  /** The slots of the memory that `load` fills. */
  readonly layout: readonly RamSlot[];
  /** Fills fresh, zeroed memory and returns the registers that the boot processor starts with. */
  load(memory: GuestMemory): BootState;
}

const MAX_SEED_BYTES = 4096;

/**
 * Reads and checks everything. The plan holds the bytes of the files.
 * @throws LivesnapError NO_SUCH_FILE, BAD_IMAGE (naming file and offset), USAGE (memory, processors, command line)
 */
export function readBoot(config: BootConfig): BootPlan {
  const { cpus, rngSeed, windows, vmgenid } = config;
  if (!Number.isInteger(cpus) || cpus < 1 || cpus > MAX_CPUS) {
    throw new LivesnapError('USAGE', `a machine cannot have ${cpus} vCPUs`, {
      hint: `Give between 1 and ${MAX_CPUS}.`,
    });
  }
  if (rngSeed.length > MAX_SEED_BYTES) throw new RangeError(`a seed of ${rngSeed.length} bytes`);
  const layout = ramLayout(config.memoryBytes);
  const ramEnd = lowRamEnd(layout);
  const kernel = readKernel(config.kernelPath, ramEnd);
  const cmdline = cmdlineBytes(config.cmdline, windowOptions(windows), kernel);
  const initrd = config.initrdPath === null ? null : readInitrd(config.initrdPath, kernel, ramEnd);
  return {
    path: kernel.path,
    layout,
    load(memory) {
      for (const { gpa, bytes } of kernel.segments) memory.write(gpa, bytes);
      if (initrd) memory.write(initrd.gpa, initrd.bytes);
      memory.write(LowMemory.cmdline, cmdline);
      if (rngSeed.length > 0) memory.write(LowMemory.setupData, rngSeedSetupData(rngSeed));
      memory.write(
        LowMemory.bootParams,
        bootParams({
          setupHeader: kernel.setupHeader,
          cmdlineGpa: LowMemory.cmdline,
          cmdlineMaxBytes: kernel.cmdlineMaxBytes,
          initrd,
          setupDataGpa: rngSeed.length > 0 ? LowMemory.setupData : 0,
          rsdpGpa: LowMemory.acpi,
          e820: e820(layout),
        }),
      );
      writeFirmware(memory, cpus, windows, vmgenid);
      memory.write(LowMemory.gdt, bootGdt());
      memory.write(LowMemory.pageTables, bootPageTables());
      return bootState(kernel.path, kernel.entry);
    },
  };
}

/** The command line with the options that livesnap adds and a terminating NUL. */
function cmdlineBytes(given: string, added: readonly string[], kernel: KernelImage): Buffer {
  const cmdline = withKernelOptions(given, added);
  if (cmdline.includes('\0'))
    throw new LivesnapError('USAGE', 'the kernel command line contains a NUL character');
  const bytes = Buffer.from(`${cmdline}\0`, 'utf8');
  const roomBytes = LowMemory.cmdlineEnd - LowMemory.cmdline - 1;
  const maxBytes = Math.min(kernel.cmdlineMaxBytes, roomBytes);
  if (bytes.length - 1 > maxBytes) {
    const addedBytes = bytes.length - 1 - Buffer.byteLength(given);
    const forDevices = addedBytes > 0 ? `, of which livesnap adds ${addedBytes} for its devices` : '';
    const limiter = kernel.cmdlineMaxBytes <= roomBytes ? 'this kernel' : 'livesnap';
    throw new LivesnapError(
      'USAGE',
      `the kernel command line has ${bytes.length - 1} bytes${forDevices}; ${limiter} accepts at most ${maxBytes}`,
    );
  }
  return bytes;
}

/** The initrd, as high in memory as the kernel allows, clear of the kernel itself. */
function readInitrd(path: string, kernel: KernelImage, ramEnd: number): LoadSegment {
  const file = ImageFile.open(path, 'initrd');
  try {
    const { sizeBytes } = file;
    const highest = (end: number): number =>
      Math.floor((Math.min(end, kernel.initrdAddrMax + 1) - sizeBytes) / PAGE_BYTES) * PAGE_BYTES;
    const gpa = highest(ramEnd);
    if (gpa < kernel.endGpa) {
      const { limit, hint } = initrdLimit(kernel, sizeBytes, ramEnd, highest(HOLE_START) >= kernel.endGpa);
      throw new LivesnapError(
        'BAD_IMAGE',
        `the initrd ${path} of ${sizeBytes} bytes does not fit between the kernel, which ends at ${hex(kernel.endGpa)}, and ${limit}`,
        { hint },
      );
    }
    return { gpa, sizeBytes, bytes: file.read(0, sizeBytes, 'the initrd') };
  } finally {
    file.close();
  }
}

/** The limit that an initrd does not fit below, and what to do. `fitsInMore`: more memory would make room for it. */
function initrdLimit(
  kernel: KernelImage,
  sizeBytes: number,
  ramEnd: number,
  fitsInMore: boolean,
): { limit: string; hint: string } {
  if (fitsInMore) {
    const pages = Math.ceil(kernel.endGpa / PAGE_BYTES) + Math.ceil(sizeBytes / PAGE_BYTES);
    return { limit: `${hex(ramEnd)}, where RAM ends`, hint: moreMemory(pages * PAGE_BYTES) };
  }
  const limit =
    kernel.initrdAddrMax < HOLE_START
      ? `${hex(kernel.initrdAddrMax)}, the highest address that this kernel accepts for an initrd`
      : `${hex(HOLE_START)}, where device addresses begin`;
  return { limit, hint: 'Give a smaller initrd; more memory does not help.' };
}

/** Writes what a BIOS leaves in memory: the BIOS data area and EBDA (sizes in KiB), the MP table, the ACPI tables. */
function writeFirmware(
  memory: GuestMemory,
  cpus: number,
  windows: readonly VirtioWindow[],
  vmgenid: boolean,
): void {
  const biosData = Buffer.alloc(0x15);
  biosData.writeUInt16LE(LowMemory.ebda >> 4, 0x0e);
  biosData.writeUInt16LE(LowMemory.ebda >> 10, 0x13);
  memory.write(LowMemory.biosData, biosData);
  memory.write(LowMemory.ebda, Uint8Array.of((LowMemory.ebdaEnd - LowMemory.ebda) >> 10));
  memory.write(LowMemory.mpPointer, mpFloatingPointer(LowMemory.mpTable));
  memory.write(LowMemory.mpTable, mpTable(cpus, windows));
  memory.write(LowMemory.acpi, acpiTables(LowMemory.acpi, cpus, windows, vmgenid));
}
