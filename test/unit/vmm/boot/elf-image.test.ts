import assert from 'node:assert/strict';
import { readElf } from '../../../../src/vmm/boot/elf-image.js';
import { ImageBytes } from '../../../../src/vmm/boot/image-file.js';
import { type ElfOptions, elfKernel, KERNEL_CODE, KERNEL_GPA, KERNEL_VADDR, MIB } from './kernel-fixtures.js';

const RAM_END = 64 * MIB;
const read = (bytes: Buffer, ramEnd = RAM_END) => readElf(new ImageBytes('vmlinux', bytes), ramEnd);

/** The file is refused, by name, with this in the message. */
function refused(options: ElfOptions | Buffer, message: RegExp): void {
  const bytes = Buffer.isBuffer(options) ? options : elfKernel(options);
  assert.throws(() => read(bytes), { code: 'BAD_IMAGE', message });
  assert.throws(() => read(bytes), { message: /^vmlinux/ });
}

describe('ELF kernel', () => {
  it('gives its segments by physical address, ascending, and its entry', () => {
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

  it('may be position-independent, and may name its entry by virtual address', () => {
    assert.equal(read(elfKernel({ type: 3, entry: KERNEL_VADDR + 8n })).entry, KERNEL_GPA + 8);
  });

  it('may leave out empty segments, wherever they say they are', () => {
    const kernel = read(elfKernel({ segments: [{}, { paddr: 0n, bytes: Buffer.alloc(0), memBytes: 0 }] }));
    assert.equal(kernel.segments.length, 1);
  });

  it('may end exactly where memory does', () => {
    const sizeBytes = KERNEL_CODE.length * 2;
    const bytes = elfKernel({
      segments: [{ paddr: BigInt(RAM_END - sizeBytes) }],
      entry: BigInt(RAM_END - sizeBytes),
    });
    assert.equal(read(bytes).segments[0]!.gpa, RAM_END - sizeBytes);
    assert.throws(() => read(bytes, RAM_END - 1), { message: /does not fit in memory/ });
  });

  it('for another machine is refused, saying for which', () => {
    refused({ machine: 183 }, /64-bit ARM.*offset 0x12/);
    refused({ machine: 3, class: 1 }, /32-bit x86/);
    refused({ machine: 9999 }, /machine type 9999/);
    const bigEndian = elfKernel({ data: 2 });
    bigEndian.writeUInt16BE(22, 18);
    refused(bigEndian, /S\/390/);
  });

  it('that is not one to boot is refused', () => {
    refused({ class: 1 }, /not a 64-bit/);
    refused({ type: 1 }, /an object file/);
    refused({ type: 4 }, /a core dump/);
    refused({ type: 77 }, /of type 77/);
    refused({ segments: [] }, /no program headers/);
    refused({ segments: [{ type: 4 }] }, /none of the program headers/);
    refused(Buffer.from('#!/bin/sh\n'.repeat(20)), /not an ELF file/);
  });

  it('that is truncated is refused, wherever it ends', () => {
    const whole = elfKernel();
    for (let length = 0; length < whole.length; length++) {
      assert.throws(() => read(whole.subarray(0, length)), {
        code: 'BAD_IMAGE',
        message: /truncated|beyond the end/,
      });
    }
    assert.doesNotThrow(() => read(whole));
  });

  it('with impossible segments is refused', () => {
    refused({ segments: [{ memBytes: 4 }] }, /more bytes in the file than in memory/);
    refused({ segments: [{ paddr: 0xf_f000n }] }, /0xff000, below 1 MiB/);
    refused({ segments: [{ paddr: 0xc000_0000n }] }, /does not fit in memory/);
    refused({ segments: [{ paddr: 0xffff_ffff_ffff_f000n }] }, /does not fit in memory/);
    refused({ segments: [{ memBytes: 1 << 30 }] }, /1073741824 bytes at address 0x1000000 does not fit/);
    refused({ segments: [{}, { paddr: BigInt(KERNEL_GPA) + 31n }] }, /overlap at address 0x100001f/);
    refused({ segments: [{ fileOffset: 1n << 63n }] }, /beyond the end of the file/);
    refused({ segments: [{ fileOffset: 130n }] }, /truncated/);
  });

  it('that does not fit is told the real limit: more memory only where that helps', () => {
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

  it('whose entry lies nowhere is refused', () => {
    refused({ entry: 0n }, /entry point 0x0 lies in none/);
    refused({ entry: BigInt(KERNEL_GPA + KERNEL_CODE.length * 2) }, /entry point/);
    refused({ entry: KERNEL_VADDR - 1n }, /entry point/);
  });

  it('with a count of program headers that escapes is refused', () => {
    const bytes = elfKernel();
    bytes.writeUInt16LE(0xffff, 56);
    refused(bytes, /no program headers/);
    bytes.writeUInt16LE(1, 56);
    bytes.writeUInt16LE(32, 54);
    refused(bytes, /program headers of 32 bytes/);
  });
});
