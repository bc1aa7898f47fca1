import assert from 'node:assert/strict';
import { readElf } from '../../../../src/vmm/boot/elf-image.js';
import { ImageBytes } from '../../../../src/vmm/boot/image-file.js';
import { type ElfOptions, elfKernel, KERNEL_CODE, KERNEL_GPA, KERNEL_VADDR, MIB } from './kernel-fixtures.js';

const RAM_END = 64 * MIB;
const read = (bytes: Buffer, ramEnd = RAM_END) => readElf(new ImageBytes('vmlinux', bytes), ramEnd);

/** Asserts that the file is refused with this message, which begins with the file's name. */
function refused(options: ElfOptions | Buffer, message: RegExp): void {
  const bytes = Buffer.isBuffer(options) ? options : elfKernel(options);
  assert.throws(() => read(bytes), { code: 'BAD_IMAGE', message });
  assert.throws(() => read(bytes), { message: /^vmlinux/ });
}

describe('readElf', () => {
  it('returns the segments by physical address, ascending, and the entry', () => {
    const second = Buffer.from('data');
    const kernel = read(
      elfKernel({
        segments: [
          { paddr: 0x200_0000n, bytes: second, memBytes: 100 },
          { paddr: BigInt(KERNEL_GPA) },
          { type: 4, paddr: 0n },
        ],
      }),
    );
    assert.equal(kernel.entry, KERNEL_GPA);
    assert.deepEqual(
      kernel.segments.map(({ gpa, sizeBytes, bytes }) => [gpa, sizeBytes, bytes.toString()]),
      [
        [KERNEL_GPA, KERNEL_CODE.length * 2, KERNEL_CODE.toString()],
        [0x200_0000, 100, 'data'],
      ],
    );
  });

  it('accepts a position-independent kernel whose entry is a virtual address', () => {
    assert.equal(read(elfKernel({ type: 3, entry: KERNEL_VADDR + 8n })).entry, KERNEL_GPA + 8);
  });

  it('ignores empty segments, wherever they are', () => {
    const kernel = read(elfKernel({ segments: [{}, { paddr: 0n, bytes: Buffer.alloc(0), memBytes: 0 }] }));
    assert.equal(kernel.segments.length, 1);
  });

  it('accepts a kernel that ends exactly where memory ends', () => {
    const sizeBytes = KERNEL_CODE.length * 2;
    const bytes = elfKernel({
      segments: [{ paddr: BigInt(RAM_END - sizeBytes) }],
      entry: BigInt(RAM_END - sizeBytes),
    });
    assert.equal(read(bytes).segments[0]!.gpa, RAM_END - sizeBytes);
    assert.throws(() => read(bytes, RAM_END - 1), { message: /does not fit in memory/ });
  });

  it('refuses a kernel for another machine, and names that machine', () => {
    refused({ machine: 183 }, /64-bit ARM.*offset 0x12/);
    refused({ machine: 3, class: 1 }, /32-bit x86/);
    refused({ machine: 9999 }, /machine type 9999/);
    const bigEndian = elfKernel({ data: 2 });
    bigEndian.writeUInt16BE(22, 18);
    refused(bigEndian, /S\/390/);
  });

  it('refuses a file that is not a bootable kernel', () => {
    refused({ class: 1 }, /not 64-bit/);
    refused({ type: 1 }, /an object file/);
    refused({ type: 4 }, /a core dump/);
    refused({ type: 77 }, /of type 77/);
    refused({ segments: [] }, /no program headers/);
    refused({ segments: [{ type: 4 }] }, /no program header is a loadable segment/);
    refused(Buffer.from('#!/bin/sh\n'.repeat(20)), /not an ELF file/);
  });

  it('refuses a truncated file, wherever it ends', () => {
    const whole = elfKernel();
    for (let length = 0; length < whole.length; length++) {
      assert.throws(() => read(whole.subarray(0, length)), {
        code: 'BAD_IMAGE',
        message: /truncated|beyond the end/,
      });
    }
    assert.doesNotThrow(() => read(whole));
  });

  it('refuses segments that are invalid, overlap, or lie outside memory or the file', () => {
    refused({ segments: [{ memBytes: 4 }] }, /more bytes in the file than in memory/);
    refused({ segments: [{ paddr: 0xf_f000n }] }, /load address 0xff000 of a segment is below 1 MiB/);
    refused({ segments: [{ paddr: 0xc000_0000n }] }, /does not fit in memory/);
    refused({ segments: [{ paddr: 0xffff_ffff_ffff_f000n }] }, /does not fit in memory/);
    refused({ segments: [{ memBytes: 1 << 30 }] }, /1073741824 bytes at address 0x1000000 does not fit/);
    refused({ segments: [{}, { paddr: BigInt(KERNEL_GPA) + 31n }] }, /overlap at address 0x100001f/);
    refused({ segments: [{ fileOffset: 1n << 63n }] }, /beyond the end of the file/);
    refused({ segments: [{ fileOffset: 130n }] }, /truncated/);
  });

  it('names the limit that a segment exceeds, and asks for more memory only where that helps', () => {
    const segment = (paddr: bigint, memBytes: number) =>
      elfKernel({ segments: [{ paddr, memBytes }], entry: paddr });
    const bytes = segment(BigInt(KERNEL_GPA), 100 * MIB);
    assert.throws(() => read(bytes), {
      message: /RAM ends at 0x4000000/,
      hint: 'Give the machine more memory: at least 116M.',
    });
    assert.doesNotThrow(() => read(bytes, 116 * MIB));
    for (const paddr of [0xbfff_fff0n, 0xd000_0000n, 0x1_0000_0000n, 0xffff_ffff_ffff_f000n]) {
      for (const ramEnd of [64 * MIB, 0xc000_0000]) {
        assert.throws(() => read(segment(paddr, 64), ramEnd), {
          message: /a kernel must end at or below 0xc0000000/,
          hint: 'Give a kernel that is loaded below 3 GiB.',
        });
      }
    }
    assert.doesNotThrow(() => read(segment(0xbfff_ffc0n, 64), 0xc000_0000));
  });

  it('refuses an entry point outside all segments', () => {
    refused({ entry: 0n }, /entry point 0x0 lies in no segment/);
    refused({ entry: BigInt(KERNEL_GPA + KERNEL_CODE.length * 2) }, /entry point/);
    refused({ entry: KERNEL_VADDR - 1n }, /entry point/);
  });

  it('refuses program headers of another number or size than it knows', () => {
    const bytes = elfKernel();
    bytes.writeUInt16LE(0xffff, 56);
    refused(bytes, /no program headers/);
    bytes.writeUInt16LE(1, 56);
    bytes.writeUInt16LE(32, 54);
    refused(bytes, /the program headers have 32 bytes, not 56/);
  });
});
