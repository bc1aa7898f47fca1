import assert from 'node:assert/strict';
import { gzipSync } from 'node:zlib';
import { readBzImage } from '../../../../src/vmm/boot/bzimage.js';
import { ImageBytes } from '../../../../src/vmm/boot/image-file.js';
import {
  type BzImageOptions,
  bzImage,
  elfKernel,
  KERNEL_CODE,
  KERNEL_GPA,
  LZ4_LEGACY_MAGIC,
  lz4Payload,
  MIB,
  STUB_BYTES,
  uint32,
} from './kernel-fixtures.js';

const RAM_END = 64 * MIB;
const read = (bytes: Buffer, ramEnd = RAM_END) => readBzImage(new ImageBytes('bzImage', bytes), ramEnd);
const xz = Buffer.concat([Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]), Buffer.alloc(100, 1)]);

function refused(bytes: Buffer, message: RegExp): void {
  assert.throws(() => read(bytes), { code: 'BAD_IMAGE', message });
  assert.throws(() => read(bytes), { message: /^bzImage/ });
}

describe('readBzImage', () => {
  for (const [format, payload] of [
    ['gzip', gzipSync(elfKernel())],
    ['lz4', lz4Payload(elfKernel())],
  ] as const) {
    it(`returns the ELF kernel in a ${format} payload`, () => {
      const kernel = read(bzImage(payload));
      assert.equal(kernel.path, `bzimage payload (${format})`);
      assert.equal(kernel.entry, KERNEL_GPA);
      assert.equal(kernel.segments[0]!.bytes.toString(), KERNEL_CODE.toString());
      assert.equal(kernel.endGpa, KERNEL_GPA + 24 * MIB);
    });

    it(`refuses a damaged ${format} payload, wherever the damage is detectable`, () => {
      for (let at = 0; at < payload.length; at++) {
        const damaged = Buffer.from(payload);
        damaged[at]! ^= 0x55;
        let kernel: ReturnType<typeof read>;
        try {
          kernel = read(bzImage(damaged));
        } catch (error) {
          assert.equal((error as { code?: string }).code, 'BAD_IMAGE', (error as Error).stack);
          continue;
        }
        // A payload without its magic number is not unpacked by the host. LZ4 blocks have no checksum.
        if (kernel.path === 'bzimage own entry') assert(at < 4);
        else assert.equal(kernel.segments.length, 1);
      }
    });

    it(`refuses a truncated ${format} payload`, () => {
      for (let length = 4; length < payload.length; length++) {
        const message = format === 'gzip' ? /damaged|not an ELF|truncated/ : /LZ4|truncated/;
        refused(bzImage(payload.subarray(0, length)), message);
      }
    });

    it(`refuses a ${format} payload that is no kernel, and names the payload`, () => {
      const text = Buffer.from('not a kernel '.repeat(20));
      refused(
        bzImage(format === 'gzip' ? gzipSync(text) : lz4Payload(text)),
        /its .* payload.*not an ELF file/,
      );
      const arm = elfKernel({ machine: 183 });
      refused(bzImage(format === 'gzip' ? gzipSync(arm) : lz4Payload(arm)), /64-bit ARM/);
    });
  }

  it('unpacks all blocks of an LZ4 payload', () => {
    const bytes = Buffer.alloc(17 * MIB, 'kernel bytes');
    const kernel = read(bzImage(lz4Payload(elfKernel({ segments: [{ bytes, memBytes: bytes.length }] }))));
    assert(kernel.segments[0]!.bytes.equals(bytes));
  });

  it('refuses a payload larger than init_size before it is unpacked', () => {
    const zeros = gzipSync(Buffer.alloc(8 * MIB));
    refused(bzImage(zeros, { initSizeBytes: 4 * MIB }), /unpacks to more than init_size, 4194304 bytes/);
    const claim = Buffer.concat([LZ4_LEGACY_MAGIC, uint32(1), Buffer.from([0]), uint32(0xffff_fff0)]);
    refused(bzImage(claim), /the unpacked size of the LZ4 payload is 4294967280 bytes/);
  });

  it('refuses LZ4 blocks that do not add up to the unpacked size', () => {
    const good = lz4Payload(elfKernel());
    const withoutSize = good.subarray(0, -4);
    const more = Buffer.concat([withoutSize, uint32(elfKernel().length + 1)]);
    refused(bzImage(more), /LZ4 block/);
    const fewer = Buffer.concat([withoutSize, uint32(elfKernel().length - 1)]);
    refused(bzImage(fewer), /LZ4 block/);
    const twice = Buffer.concat([withoutSize, withoutSize.subarray(4), uint32(elfKernel().length)]);
    refused(bzImage(twice), /follows the end of the unpacked kernel/);
    const none = Buffer.concat([LZ4_LEGACY_MAGIC, uint32(0), uint32(100)]);
    refused(bzImage(none), /unpacks to 0 bytes, not 100/);
    const beyond = Buffer.concat([LZ4_LEGACY_MAGIC, uint32(1000), Buffer.alloc(8), uint32(100)]);
    refused(bzImage(beyond), /extends beyond the payload/);
  });

  it('enters a kernel with any other payload at its own 64-bit entry', () => {
    const kernel = read(bzImage(xz));
    assert.equal(kernel.path, 'bzimage own entry');
    assert.equal(kernel.entry, KERNEL_GPA + 0x200);
    assert.equal(kernel.segments.length, 1);
    const { gpa, sizeBytes, bytes } = kernel.segments[0]!;
    assert.deepEqual([gpa, sizeBytes], [KERNEL_GPA, 24 * MIB]);
    assert(bytes.subarray(STUB_BYTES, STUB_BYTES + xz.length).equals(xz));
    assert.equal(read(bzImage(Buffer.alloc(0))).path, 'bzimage own entry');
  });

  it('accepts a kernel right above the first MiB', () => {
    assert.equal(read(bzImage(xz, { prefAddress: BigInt(MIB) })).entry, MIB + 0x200);
  });

  it('keeps the setup header, with the length in its jump', () => {
    const image = bzImage(xz);
    assert.deepEqual(read(image).setupHeader, image.subarray(0x1f1, 0x26c));
    assert.deepEqual(read(bzImage(xz, { jump: 0x62 })).setupHeader?.length, 0x264 - 0x1f1);
  });

  it('reads 0 setup sectors as 4', () => {
    const image = bzImage(gzipSync(elfKernel()), { setupSects: 4 });
    image[0x1f1] = 0;
    assert.equal(read(image).entry, KERNEL_GPA);
  });

  it('returns the limits for the initrd and the command line', () => {
    const { initrdAddrMax, cmdlineMaxBytes } = read(
      bzImage(xz, { initrdAddrMax: 0x37ff_ffff, cmdlineSize: 255 }),
    );
    assert.deepEqual([initrdAddrMax, cmdlineMaxBytes], [0x37ff_ffff, 255]);
  });

  it('refuses a truncated file, wherever it ends', () => {
    const whole = bzImage(xz, { setupSects: 1 });
    const payloadEnd = 2 * 512 + STUB_BYTES + xz.length;
    for (let length = 0x206; length < payloadEnd; length++) refused(whole.subarray(0, length), /truncated/);
    assert.doesNotThrow(() => read(Buffer.concat([whole, Buffer.from('a signature')])));
  });

  it('accepts a file that lacks the up to 15 bytes by which syssize is rounded up', () => {
    const whole = bzImage(Buffer.alloc(0));
    for (let missing = 0; missing <= 15; missing++) {
      const kernel = read(whole.subarray(0, whole.length - missing));
      const [{ bytes, sizeBytes }] = kernel.segments as [(typeof kernel.segments)[0]];
      assert.equal(
        bytes.length,
        STUB_BYTES - missing,
        'the missing bytes are not written: fresh memory is zero',
      );
      assert.equal(sizeBytes, 24 * MIB);
    }
    refused(whole.subarray(0, whole.length - 16), /truncated: the kernel takes 1024 bytes at offset 0x800/);
  });

  it('refuses a file that ends within its payload, though fewer than 16 bytes are missing', () => {
    for (const payload of [xz, gzipSync(elfKernel())]) {
      const whole = bzImage(payload);
      const padding = -payload.length & 15;
      assert.doesNotThrow(() => read(whole.subarray(0, whole.length - padding)));
      refused(whole.subarray(0, whole.length - padding - 1), /truncated: the kernel takes/);
    }
  });

  it('refuses a kernel that is too short for its own 64-bit entry', () => {
    const image = bzImage(Buffer.alloc(0), { payloadOffset: 0 });
    image.writeUInt32LE(0x200 / 16, 0x1f4);
    refused(image, /a kernel of 512 bytes has no 64-bit entry at 0x200/);
    image.writeUInt32LE(0, 0x1f4);
    refused(image, /a kernel of 0 bytes/);
  });

  it('names the limit that a kernel exceeds, and asks for more memory only where that helps', () => {
    const refusal = (options: BzImageOptions) => {
      try {
        read(bzImage(xz, options));
      } catch (error) {
        return error as { message: string; hint: string };
      }
      throw new Error('it fits');
    };
    const small = refusal({ initSizeBytes: 60 * MIB });
    assert.match(small.message, /RAM ends at 0x4000000/);
    assert.equal(small.hint, 'Give the machine more memory: at least 76M.');
    assert.doesNotThrow(() => read(bzImage(xz, { initSizeBytes: 60 * MIB }), 76 * MIB));
    for (const options of [
      { prefAddress: 0xbfff_f000n },
      { prefAddress: 1n << 40n },
      { initSizeBytes: 0xffff_ffff },
    ]) {
      const { message, hint } = refusal(options);
      assert.match(message, /a kernel must end at or below 0xc0000000/);
      assert.equal(hint, 'Give a kernel that is loaded below 3 GiB.');
    }
  });

  it('refuses a kernel for another machine, with a hint which one to use', () => {
    const hint = (bytes: Buffer, expected: string) => assert.throws(() => read(bytes), { hint: expected });
    hint(bzImage(xz, { version: 0x020b }), 'Use Linux 3.8 or newer.');
    hint(bzImage(xz, { xloadflags: 0 }), 'Give a kernel built for x86-64.');
    hint(bzImage(gzipSync(elfKernel({ machine: 183 }))), 'Give a kernel built for x86-64.');
    hint(bzImage(xz).subarray(0, 2000), 'Copy or build the file again.');
  });

  const wrong: [string, BzImageOptions, RegExp][] = [
    ['of an older protocol', { version: 0x020b }, /protocol 2\.11; livesnap needs 2\.12/],
    ['without a 64-bit entry', { xloadflags: 0 }, /no 64-bit entry/],
    ['that is loaded low', { loadflags: 0 }, /zImage/],
    ['that is loaded below 1 MiB', { prefAddress: 0x1_0000n }, /load address 0x10000 is below 1 MiB/],
    ['that lies beyond memory', { prefAddress: 1n << 40n }, /must end at or below 0xc0000000/],
    ['that needs more memory than there is', { initSizeBytes: 60 * MIB }, /needs 62914560 bytes/],
    ['that is larger than its init_size', { initSizeBytes: 64 }, /more than its own init_size of 64/],
    ['whose payload begins beyond its end', { payloadOffset: 0xffff_fff0 }, /extends beyond the kernel's/],
    ['whose payload is too long', { payloadLength: 0xffff_ffff }, /extends beyond the kernel's/],
    ['whose header is too short', { jump: 0 }, /ends at 0x202/],
    ['whose header is too long', { jump: 0xff }, /ends at 0x301/],
  ];
  for (const [what, options, message] of wrong) {
    it(`refuses a kernel ${what}`, () => refused(bzImage(xz, options), message));
  }
});
