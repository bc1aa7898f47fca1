/**
 * Reads the loadable part of a 64-bit x86 ELF file (System V ABI, "Object Files" and "Program Loading").
 *
 * Invariants:
 * - Every segment lies in RAM above the first MiB and overlaps no other.
 * - The entry point lies in a segment.
 * - Bytes are read only for checked ranges, so the size of RAM bounds the bytes in memory.
 */
import { hex, type Image } from './image-file.js';
import { HIGH_MEMORY_START, kernelLimit } from './memory-layout.js';

const EHDR_BYTES = 64;
const PHDR_BYTES = 56;
const CLASS_64 = 2;
const DATA_LITTLE_ENDIAN = 1;
const PT_LOAD = 1;
/** The value of e_phnum that stands for a count in another place. No kernel needs it. */
const PN_XNUM = 0xffff;

const EType = { relocatable: 1, executable: 2, shared: 3, core: 4 } as const;
const EM_X86_64 = 62;

const MACHINES: Readonly<Record<number, string>> = {
  2: 'SPARC',
  3: '32-bit x86',
  8: 'MIPS',
  20: 'PowerPC',
  21: '64-bit PowerPC',
  22: 'S/390',
  40: '32-bit ARM',
  43: '64-bit SPARC',
  183: '64-bit ARM',
  243: 'RISC-V',
  258: 'LoongArch',
};

const Ehdr = {
  class: 4,
  data: 5,
  type: 16,
  machine: 18,
  entry: 24,
  phoff: 32,
  phentsize: 54,
  phnum: 56,
} as const;
const Phdr = { type: 0, offset: 8, vaddr: 16, paddr: 24, filesz: 32, memsz: 40 } as const;

/** A range of RAM and the bytes at its beginning; the rest of the range stays zero. */
export interface LoadSegment {
  readonly gpa: number;
  readonly sizeBytes: number;
  readonly bytes: Buffer;
}

export interface ElfImage {
  /** Guest-physical address of the first instruction. */
  readonly entry: number;
  readonly segments: readonly LoadSegment[];
}

interface Range {
  readonly headerOffset: number;
  readonly fileOffset: number;
  readonly fileBytes: number;
  readonly vaddr: bigint;
  readonly gpa: number;
  readonly sizeBytes: number;
}

export const isElf = (head: Buffer): boolean => head.length >= 4 && head.readUInt32BE(0) === 0x7f454c46;

/**
 * @param ramEnd first address after the RAM that the kernel may use
 * @throws LivesnapError BAD_IMAGE
 */
export function readElf(image: Image, ramEnd: number): ElfImage {
  const header = image.read(0, EHDR_BYTES, 'an ELF header');
  checkHeader(image, header);
  const count = header.readUInt16LE(Ehdr.phnum);
  const ranges = readRanges(image, header.readBigUInt64LE(Ehdr.phoff), count, ramEnd);
  const entry = physicalEntry(image, header.readBigUInt64LE(Ehdr.entry), ranges);
  const segments = ranges.map(({ fileOffset, fileBytes, gpa, sizeBytes }) => ({
    gpa,
    sizeBytes,
    bytes: image.read(fileOffset, fileBytes, 'a segment'),
  }));
  return { entry, segments };
}

function checkHeader(image: Image, header: Buffer): void {
  if (!isElf(header)) throw image.bad(0, 'this is not an ELF file');
  // The machine is checked first: "for 64-bit ARM" is clearer than "big-endian".
  const littleEndian = header[Ehdr.data] === DATA_LITTLE_ENDIAN;
  const machine = littleEndian ? header.readUInt16LE(Ehdr.machine) : header.readUInt16BE(Ehdr.machine);
  if (machine !== EM_X86_64) {
    const name = MACHINES[machine] ?? `machine type ${machine}`;
    throw image.bad(
      Ehdr.machine,
      `this ELF file is for ${name}, not for x86-64`,
      'Give a kernel built for x86-64.',
    );
  }
  if (header[Ehdr.class] !== CLASS_64 || !littleEndian) {
    throw image.bad(Ehdr.class, 'this ELF file is not 64-bit and little-endian');
  }
  const type = header.readUInt16LE(Ehdr.type);
  if (type !== EType.executable && type !== EType.shared) {
    const found =
      type === EType.relocatable ? 'an object file' : type === EType.core ? 'a core dump' : `of type ${type}`;
    throw image.bad(Ehdr.type, `this ELF file is ${found}, not a kernel`);
  }
  if (header.readUInt16LE(Ehdr.phentsize) !== PHDR_BYTES) {
    throw image.bad(
      Ehdr.phentsize,
      `the program headers have ${header.readUInt16LE(Ehdr.phentsize)} bytes, not ${PHDR_BYTES}`,
    );
  }
  const count = header.readUInt16LE(Ehdr.phnum);
  if (count === 0 || count === PN_XNUM) throw image.bad(Ehdr.phnum, 'there are no program headers');
}

function readRanges(image: Image, tableOffset: bigint, count: number, ramEnd: number): Range[] {
  const offset = fileNumber(image, tableOffset, Ehdr.phoff, 'the program headers start');
  const table = image.read(offset, count * PHDR_BYTES, 'the table of program headers');
  const ranges: Range[] = [];
  for (let i = 0; i < count; i++) {
    const at = i * PHDR_BYTES;
    if (table.readUInt32LE(at + Phdr.type) !== PT_LOAD) continue;
    const memBytes = table.readBigUInt64LE(at + Phdr.memsz);
    const fileBytes = table.readBigUInt64LE(at + Phdr.filesz);
    const headerOffset = offset + at;
    if (fileBytes > memBytes)
      throw image.bad(headerOffset + Phdr.filesz, 'a segment has more bytes in the file than in memory');
    if (memBytes === 0n) continue;
    const paddr = table.readBigUInt64LE(at + Phdr.paddr);
    if (paddr < BigInt(HIGH_MEMORY_START)) {
      throw image.bad(
        headerOffset + Phdr.paddr,
        `the load address ${hex(paddr)} of a segment is below 1 MiB`,
      );
    }
    if (paddr + memBytes > BigInt(ramEnd)) {
      const { limit, hint } = kernelLimit(paddr + memBytes, ramEnd);
      throw image.bad(
        headerOffset + Phdr.paddr,
        `a segment of ${memBytes} bytes at address ${hex(paddr)} does not fit in memory: ${limit}`,
        hint,
      );
    }
    ranges.push({
      headerOffset,
      fileOffset: fileNumber(
        image,
        table.readBigUInt64LE(at + Phdr.offset),
        headerOffset + Phdr.offset,
        'a segment starts',
      ),
      fileBytes: Number(fileBytes),
      vaddr: table.readBigUInt64LE(at + Phdr.vaddr),
      gpa: Number(paddr),
      sizeBytes: Number(memBytes),
    });
  }
  if (ranges.length === 0) throw image.bad(offset, 'no program header is a loadable segment');
  ranges.sort((a, b) => a.gpa - b.gpa);
  ranges.forEach((range, i) => {
    const before = ranges[i - 1];
    if (before && before.gpa + before.sizeBytes > range.gpa) {
      throw image.bad(range.headerOffset, `two segments overlap at address ${hex(range.gpa)}`);
    }
  });
  return ranges;
}

/** The entry point of a vmlinux is a physical address; other kernels have a virtual address within a segment. */
function physicalEntry(image: Image, entry: bigint, ranges: readonly Range[]): number {
  for (const { gpa, sizeBytes } of ranges) {
    if (entry >= BigInt(gpa) && entry < BigInt(gpa + sizeBytes)) return Number(entry);
  }
  for (const { gpa, vaddr, sizeBytes } of ranges) {
    if (entry >= vaddr && entry < vaddr + BigInt(sizeBytes)) return gpa + Number(entry - vaddr);
  }
  throw image.bad(Ehdr.entry, `the entry point ${hex(entry)} lies in no segment`);
}

function fileNumber(image: Image, value: bigint, fieldOffset: number, what: string): number {
  if (value > BigInt(image.sizeBytes)) {
    throw image.bad(
      fieldOffset,
      `${what} at offset ${hex(value)}, beyond the end of the file, ${hex(image.sizeBytes)}`,
    );
  }
  return Number(value);
}
