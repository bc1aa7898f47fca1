/**
 * Reads a kernel and an initrd, and puts them into guest memory with everything the Linux boot protocol asks for:
 * Documentation/arch/x86/boot.rst, "64-bit Boot Protocol".
 *
 * Invariant: all that can be wrong with the files, or with the memory they are to fit in, is found by
 * {@link readBoot}, before a machine exists; {@link BootPlan.load} only copies.
 */
import { LivesnapError } from '../../errors.js';
import { acpiTables } from './acpi-tables.js';
import { bootParams, rngSeedSetupData } from './boot-params.js';
import { type BootPath, type BootState, bootGdt, bootPageTables, bootState } from './boot-state.js';
import type { LoadSegment } from './elf-image.js';
import type { GuestMemory } from './guest-memory.js';
import { ImageFile } from './image-file.js';
import { MAX_CPUS } from './interrupt-wiring.js';
import { type KernelImage, readKernelImage } from './kernel-image.js';
import { e820, LowMemory, lowRamEnd, type RamSlot, ramLayout } from './memory-layout.js';
import { mpFloatingPointer, mpTable } from './mp-table.js';

export interface BootConfig {
  /** A bzImage or an ELF vmlinux. */
  readonly kernelPath: string;
  readonly initrdPath: string | null;
  readonly cmdline: string;
  readonly memoryBytes: number;
  /** 1 to {@link MAX_CPUS}. */
  readonly cpus: number;
  /** Handed to the guest as SETUP_RNG_SEED, at most 4096 bytes; empty: none. */
  readonly rngSeed: Uint8Array;
}

export interface BootPlan {
  readonly path: BootPath;
  /** The slots that `load`'s memory must have. */
  readonly layout: readonly RamSlot[];
  /** Fills fresh (zeroed) memory and says how the boot processor starts. */
  load(memory: GuestMemory): BootState;
}

const PAGE_BYTES = 4096;
const MAX_SEED_BYTES = 4096;

/**
 * Reads and checks everything; what comes back holds the files' bytes until it is let go.
 * @throws LivesnapError NO_SUCH_FILE, BAD_IMAGE (naming file and offset), USAGE (memory, processors, command line)
 */
export function readBoot(config: BootConfig): BootPlan {
  const { cpus, rngSeed } = config;
  if (!Number.isInteger(cpus) || cpus < 1 || cpus > MAX_CPUS) {
    throw new LivesnapError(
      'USAGE',
      `a machine cannot have ${cpus} processors: 1 to ${MAX_CPUS} are possible`,
    );
  }
  if (rngSeed.length > MAX_SEED_BYTES) throw new RangeError(`a seed of ${rngSeed.length} bytes`);
  const layout = ramLayout(config.memoryBytes);
  const ramEnd = lowRamEnd(layout);
  const kernel = readKernelImage(config.kernelPath, ramEnd);
  const cmdline = cmdlineBytes(config.cmdline, kernel);
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
      writeFirmware(memory, cpus);
      memory.write(LowMemory.gdt, bootGdt());
      memory.write(LowMemory.pageTables, bootPageTables());
      return bootState(kernel.path, kernel.entry);
    },
  };
}

/** The command line as the kernel reads it, with its terminating zero. */
function cmdlineBytes(cmdline: string, kernel: KernelImage): Buffer {
  if (cmdline.includes('\0'))
    throw new LivesnapError('USAGE', 'the kernel command line contains a zero byte');
  const bytes = Buffer.from(`${cmdline}\0`, 'utf8');
  const maxBytes = Math.min(kernel.cmdlineMaxBytes, LowMemory.cmdlineEnd - LowMemory.cmdline - 1);
  if (bytes.length - 1 > maxBytes) {
    throw new LivesnapError(
      'USAGE',
      `the kernel command line is ${bytes.length - 1} bytes long, and this kernel takes at most ${maxBytes}`,
    );
  }
  return bytes;
}

/** The initrd, as high in memory as the kernel allows, clear of the kernel itself. */
function readInitrd(path: string, kernel: KernelImage, ramEnd: number): LoadSegment {
  const file = ImageFile.open(path, 'initrd');
  try {
    const { sizeBytes } = file;
    const top = Math.min(ramEnd, kernel.initrdAddrMax + 1);
    const gpa = Math.floor((top - sizeBytes) / PAGE_BYTES) * PAGE_BYTES;
    if (gpa < kernel.endGpa) {
      throw new LivesnapError(
        'BAD_IMAGE',
        `the initrd ${path} of ${sizeBytes} bytes does not fit in the ${Math.max(0, top - kernel.endGpa)} bytes of memory that the kernel leaves`,
        { hint: 'Give the machine more memory.' },
      );
    }
    return { gpa, sizeBytes, bytes: file.read(0, sizeBytes, 'the initrd') };
  } finally {
    file.close();
  }
}

/** What a BIOS would have left: its words on base memory and the EBDA (sizes in KiB), MP table, ACPI tables. */
function writeFirmware(memory: GuestMemory, cpus: number): void {
  const biosData = Buffer.alloc(0x15);
  biosData.writeUInt16LE(LowMemory.ebda >> 4, 0x0e);
  biosData.writeUInt16LE(LowMemory.ebda >> 10, 0x13);
  memory.write(LowMemory.biosData, biosData);
  memory.write(LowMemory.ebda, Uint8Array.of((LowMemory.ebdaEnd - LowMemory.ebda) >> 10));
  memory.write(LowMemory.mpPointer, mpFloatingPointer(LowMemory.mpTable));
  memory.write(LowMemory.mpTable, mpTable(cpus));
  memory.write(LowMemory.acpi, acpiTables(LowMemory.acpi, cpus));
}
