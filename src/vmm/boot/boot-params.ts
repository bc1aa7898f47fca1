/**
 * The kernel's setup header and struct boot_params ("zero page"): Linux boot protocol, "The Real-Mode Kernel Header";
 * Documentation/arch/x86/zero-page.rst. A field of the setup header has the same offset in the bzImage file and in
 * boot_params.
 */
import type { E820Entry } from './memory-layout.js';

/** "HdrS" */
export const SETUP_HEADER_MAGIC = 0x53726448;

/** Offsets of the fields of the setup header that livesnap uses. */
export const SetupHeader = {
  start: 0x1f1,
  setupSects: 0x1f1,
  /** In units of 16 bytes. */
  syssize: 0x1f4,
  vidMode: 0x1fa,
  bootFlag: 0x1fe,
  jump: 0x200,
  header: 0x202,
  version: 0x206,
  typeOfLoader: 0x210,
  loadflags: 0x211,
  ramdiskImage: 0x218,
  ramdiskSize: 0x21c,
  cmdLinePtr: 0x228,
  initrdAddrMax: 0x22c,
  kernelAlignment: 0x230,
  xloadflags: 0x236,
  cmdlineSize: 0x238,
  payloadOffset: 0x248,
  payloadLength: 0x24c,
  setupData: 0x250,
  prefAddress: 0x258,
  initSize: 0x260,
  /** First byte after `init_size`, the last field of protocol 2.10. */
  end: 0x264,
} as const;

/** Offsets of the other fields of struct boot_params that livesnap writes. */
const BootParams = { acpiRsdpAddr: 0x070, e820Entries: 0x1e8, e820Table: 0x2d0 } as const;

const BOOT_PARAMS_BYTES = 4096;
const E820_ENTRY_BYTES = 20;
const BOOT_FLAG = 0xaa55;
/** `type_of_loader` of a boot loader without an assigned number. */
const LOADER_UNDEFINED = 0xff;
const LOADED_HIGH = 1;
/** "Normal" video mode: the kernel does not ask the user. */
const VID_MODE_NORMAL = 0xffff;
/** The type of a struct setup_data that holds a seed for the kernel's entropy pool. */
const SETUP_RNG_SEED = 9;
const SETUP_DATA_HEADER_BYTES = 16;

export interface BootParamsFields {
  /** The setup header of a bzImage; null for an ELF kernel, which gets a new one. */
  readonly setupHeader: Buffer | null;
  readonly cmdlineGpa: number;
  readonly cmdlineMaxBytes: number;
  readonly initrd: { readonly gpa: number; readonly sizeBytes: number } | null;
  /** Address of the first struct setup_data; 0 for none. */
  readonly setupDataGpa: number;
  readonly rsdpGpa: number;
  readonly e820: readonly E820Entry[];
}

/** The page that RSI points to at the kernel's entry. */
export function bootParams(fields: BootParamsFields): Buffer {
  const page = Buffer.alloc(BOOT_PARAMS_BYTES);
  if (fields.setupHeader) {
    fields.setupHeader.copy(page, SetupHeader.start);
  } else {
    page.writeUInt16LE(BOOT_FLAG, SetupHeader.bootFlag);
    page.writeUInt32LE(SETUP_HEADER_MAGIC, SetupHeader.header);
    page.writeUInt16LE(0x020f, SetupHeader.version);
    page.writeUInt8(LOADED_HIGH, SetupHeader.loadflags);
    page.writeUInt32LE(fields.cmdlineMaxBytes, SetupHeader.cmdlineSize);
  }
  page.writeUInt16LE(VID_MODE_NORMAL, SetupHeader.vidMode);
  page.writeUInt8(LOADER_UNDEFINED, SetupHeader.typeOfLoader);
  page.writeUInt32LE(fields.cmdlineGpa, SetupHeader.cmdLinePtr);
  page.writeUInt32LE(fields.initrd?.gpa ?? 0, SetupHeader.ramdiskImage);
  page.writeUInt32LE(fields.initrd?.sizeBytes ?? 0, SetupHeader.ramdiskSize);
  page.writeBigUInt64LE(BigInt(fields.setupDataGpa), SetupHeader.setupData);
  page.writeBigUInt64LE(BigInt(fields.rsdpGpa), BootParams.acpiRsdpAddr);
  page.writeUInt8(fields.e820.length, BootParams.e820Entries);
  fields.e820.forEach(({ gpa, sizeBytes, type }, i) => {
    const at = BootParams.e820Table + i * E820_ENTRY_BYTES;
    page.writeBigUInt64LE(BigInt(gpa), at);
    page.writeBigUInt64LE(BigInt(sizeBytes), at + 8);
    page.writeUInt32LE(type, at + 16);
  });
  return page;
}

/** A struct setup_data, the last of its list, with a seed for the guest's random number generator. */
export function rngSeedSetupData(seed: Uint8Array): Buffer {
  const data = Buffer.alloc(SETUP_DATA_HEADER_BYTES + seed.length);
  data.writeBigUInt64LE(0n, 0);
  data.writeUInt32LE(SETUP_RNG_SEED, 8);
  data.writeUInt32LE(seed.length, 12);
  data.set(seed, SETUP_DATA_HEADER_BYTES);
  return data;
}
