import assert from 'node:assert/strict';
import { gzipSync } from 'node:zlib';
import { type BootConfig, readBoot } from '../../../../src/vmm/boot/boot-linux.js';
import { virtioWindows } from '../../../../src/vmm/virtio/windows.js';
import {
  type BzImageOptions,
  bzImage,
  elfKernel,
  ImageDirectory,
  KERNEL_CODE,
  KERNEL_GPA,
  MIB,
  RecordingMemory,
} from './kernel-fixtures.js';

const GIB = 1024 * MIB;

describe('readBoot', () => {
  let dir: ImageDirectory;
  before(() => {
    dir = new ImageDirectory();
  });
  after(() => dir.close());

  const config = (changes: Partial<BootConfig> = {}): BootConfig => ({
    kernelPath: dir.file('vmlinux', elfKernel()),
    initrdPath: null,
    cmdline: 'console=ttyS0',
    memoryBytes: 64 * MIB,
    cpus: 1,
    rngSeed: new Uint8Array(0),
    windows: [],
    vmgenid: false,
    ...changes,
  });

  /** RecordingMemory refuses writes that are outside RAM or overlap. */
  function load(changes: Partial<BootConfig> = {}) {
    const plan = readBoot(config(changes));
    const memory = new RecordingMemory(plan.layout);
    const state = plan.load(memory);
    const bootParams = memory.bytes(Number(state.rsi), 4096);
    return { plan, memory, state, bootParams };
  }

  const bzImageFile = (options: BzImageOptions = {}) =>
    dir.file('bzImage', bzImage(gzipSync(elfKernel()), options));

  it('loads the kernel at its address and enters it', () => {
    const { plan, memory, state } = load();
    assert.equal(plan.path, 'elf');
    assert.equal(state.path, 'elf');
    assert.equal(state.rip, BigInt(KERNEL_GPA));
    assert.deepEqual(memory.bytes(KERNEL_GPA, KERNEL_CODE.length), KERNEL_CODE);
  });

  it('enters the kernel in a bzImage like an ELF kernel', () => {
    const { state, memory } = load({ kernelPath: bzImageFile() });
    assert.equal(state.path, 'bzimage payload (gzip)');
    assert.equal(state.rip, BigInt(KERNEL_GPA));
    assert.deepEqual(memory.bytes(KERNEL_GPA, KERNEL_CODE.length), KERNEL_CODE);
  });

  for (const cpus of [1, 4, 254]) {
    for (const memoryBytes of [32 * MIB, 5 * GIB]) {
      it(`overlaps none of its writes with ${cpus} vCPUs and ${memoryBytes} bytes of memory`, () => {
        const initrdPath = dir.file('initrd', Buffer.alloc(5000, 1));
        load({ cpus, memoryBytes, initrdPath, rngSeed: new Uint8Array(4096), cmdline: 'x'.repeat(2047) });
      });
    }
  }

  it('makes a setup header for an ELF kernel', () => {
    const { bootParams } = load();
    assert.equal(bootParams.readUInt16LE(0x1fe), 0xaa55);
    assert.equal(bootParams.toString('latin1', 0x202, 0x206), 'HdrS');
    assert.equal(bootParams.readUInt16LE(0x206), 0x020f);
    assert.equal(bootParams[0x210], 0xff, 'type_of_loader');
    assert.equal(bootParams[0x211]! & 1, 1, 'LOADED_HIGH');
    assert.equal(bootParams.readUInt32LE(0x238), 2047, 'cmdline_size');
    assert.equal(bootParams[0x1ef], 0, 'sentinel');
  });

  it('copies the setup header of a bzImage, and nothing else of its first sectors', () => {
    const kernelPath = bzImageFile();
    const image = bzImage(gzipSync(elfKernel()));
    const { bootParams } = load({ kernelPath });
    assert.equal(bootParams.readUInt32LE(0x1f4), image.readUInt32LE(0x1f4), 'syssize');
    assert.equal(bootParams.readBigUInt64LE(0x258), BigInt(KERNEL_GPA), 'pref_address');
    assert.equal(bootParams[0x210], 0xff, 'type_of_loader');
    assert.equal(bootParams[0x1f0], 0);
    assert(bootParams.subarray(0x26c, 0x2d0).every((byte) => byte === 0));
  });

  it('passes the command line, ended by a NUL', () => {
    const { memory, bootParams } = load({ cmdline: 'console=ttyS0 naïve' });
    const text = Buffer.from('console=ttyS0 naïve\0');
    assert.deepEqual(memory.bytes(bootParams.readUInt32LE(0x228), text.length), text);
  });

  it('passes the memory map', () => {
    const { bootParams } = load({ memoryBytes: 5 * GIB });
    const count = bootParams[0x1e8]!;
    const entries = Array.from({ length: count }, (_, i) => {
      const at = 0x2d0 + 20 * i;
      return [
        bootParams.readBigUInt64LE(at),
        bootParams.readBigUInt64LE(at + 8),
        bootParams.readUInt32LE(at + 16),
      ];
    });
    assert.deepEqual(entries.at(-1), [0x1_0000_0000n, 0x8000_0000n, 1]);
    assert.deepEqual(entries.at(-3), [0x10_0000n, 0xbff0_0000n, 1]);
  });

  it('passes the seed as setup data', () => {
    const rngSeed = Uint8Array.from({ length: 32 }, (_, i) => i + 1);
    const { memory, bootParams } = load({ rngSeed });
    const data = memory.bytes(Number(bootParams.readBigUInt64LE(0x250)), 48);
    assert.equal(data.readBigUInt64LE(0), 0n, 'next');
    assert.equal(data.readUInt32LE(8), 9, 'SETUP_RNG_SEED');
    assert.equal(data.readUInt32LE(12), 32, 'len');
    assert.deepEqual(data.subarray(16), Buffer.from(rngSeed));
    assert.equal(load().bootParams.readBigUInt64LE(0x250), 0n, 'none without a seed');
  });

  it('points to the ACPI tables and, through the EBDA, to the MP table', () => {
    const { memory, bootParams } = load();
    assert.equal(memory.bytes(Number(bootParams.readBigUInt64LE(0x70)), 8).toString(), 'RSD PTR ');
    const ebda = memory.bytes(0x40e, 2).readUInt16LE() << 4;
    assert.equal(ebda, memory.bytes(0x413, 2).readUInt16LE() << 10);
    const firstKib = memory.bytes(ebda, 1024);
    assert.equal(firstKib[0], 1, 'its size in KiB');
    const pointer = firstKib.indexOf('_MP_');
    assert.equal(pointer % 16, 0);
    assert.equal(memory.bytes(firstKib.readUInt32LE(pointer + 4), 4).toString(), 'PCMP');
  });

  describe('with an initrd', () => {
    const initrdOf = (bootParams: Buffer) =>
      [bootParams.readUInt32LE(0x218), bootParams.readUInt32LE(0x21c)] as const;

    it('loads it on the highest page boundary where it fits', () => {
      const bytes = Buffer.alloc(5000, 'initrd');
      const { memory, bootParams } = load({ initrdPath: dir.file('initrd', bytes) });
      const [gpa, sizeBytes] = initrdOf(bootParams);
      assert.deepEqual([gpa, sizeBytes], [64 * MIB - 8192, 5000]);
      assert.deepEqual(memory.bytes(gpa, sizeBytes), bytes);
    });

    it('passes the address 0 and the size 0 when there is none', () => {
      assert.deepEqual(initrdOf(load().bootParams), [0, 0]);
    });

    it('loads it below initrd_addr_max and below the MMIO hole', () => {
      const initrdPath = dir.file('initrd', Buffer.alloc(4096));
      const reach = load({ memoryBytes: 5 * GIB, initrdPath });
      assert.equal(initrdOf(reach.bootParams)[0], 0x7fff_f000);
      const kernelPath = bzImageFile({ initrdAddrMax: 0x37ff_ffff });
      assert.equal(
        initrdOf(load({ memoryBytes: 5 * GIB, initrdPath, kernelPath }).bootParams)[0],
        0x37ff_f000,
      );
      const everywhere = bzImageFile({ initrdAddrMax: 0xffff_ffff });
      const hole = load({ memoryBytes: 5 * GIB, initrdPath, kernelPath: everywhere });
      assert.equal(initrdOf(hole.bootParams)[0], 0xbfff_f000);
    });

    it('accepts one that fills the space above the kernel, and refuses one that is a byte larger', () => {
      const kernelPath = bzImageFile({ initSizeBytes: 24 * MIB });
      const most = 64 * MIB - KERNEL_GPA - 24 * MIB;
      load({ kernelPath, initrdPath: dir.file('initrd', Buffer.alloc(most)) });
      const initrdPath = dir.file('initrd', Buffer.alloc(most + 1));
      assert.throws(() => readBoot(config({ kernelPath, initrdPath })), {
        code: 'BAD_IMAGE',
        message: new RegExp(
          `initrd of ${most + 1} bytes does not fit between the kernel, which ends at 0x2800000, and 0x4000000, where RAM ends`,
        ),
        hint: 'Give the machine more memory: at least 65M.',
      });
      load({ kernelPath, initrdPath, memoryBytes: 65 * MIB });
    });

    it('names the limit when more memory does not help', () => {
      const initrdPath = dir.file('initrd', Buffer.alloc(8 * MIB + 1));
      const attempt = (options: BzImageOptions, memoryBytes: number) => () =>
        readBoot(config({ kernelPath: bzImageFile(options), initrdPath, memoryBytes }));
      const noHelp = { code: 'BAD_IMAGE', hint: 'Give a smaller initrd; more memory does not help.' };
      const reach = 40 * MIB + 8 * MIB - 1;
      for (const memoryBytes of [44 * MIB, 64 * MIB, 5 * GIB]) {
        assert.throws(attempt({ initrdAddrMax: reach }, memoryBytes), {
          ...noHelp,
          message: /and 0x2ffffff, the highest address that this kernel accepts for an initrd/,
        });
      }
      const everywhere = { initrdAddrMax: 0xffff_ffff, prefAddress: 0xc000_0000n - BigInt(24 * MIB) };
      assert.throws(attempt(everywhere, 5 * GIB), {
        ...noHelp,
        message: /and 0xc0000000, where device addresses begin/,
      });
    });

    it('loads it above the memory that an ELF kernel zeroes', () => {
      const kernelPath = dir.file('bss', elfKernel({ segments: [{ memBytes: 40 * MIB }] }));
      load({ kernelPath, initrdPath: dir.file('initrd', Buffer.alloc(8 * MIB)) });
      const initrdPath = dir.file('initrd', Buffer.alloc(8 * MIB + 1));
      assert.throws(() => readBoot(config({ kernelPath, initrdPath })), {
        code: 'BAD_IMAGE',
        hint: /more memory/,
      });
    });

    it('refuses one that is missing, empty or a directory, by its path', () => {
      const attempt = (initrdPath: string) => () => readBoot(config({ initrdPath }));
      assert.throws(attempt('/nowhere/initrd'), {
        code: 'NO_SUCH_FILE',
        message: 'there is no initrd /nowhere/initrd',
      });
      assert.throws(attempt(dir.file('empty', '')), { code: 'BAD_IMAGE', message: /the initrd .* is empty/ });
      assert.throws(attempt(dir.path), { code: 'BAD_IMAGE', message: /the initrd .* is not a regular file/ });
    });
  });

  it('adds an option for each virtio device, before the arguments of init', () => {
    const windows = virtioWindows(2);
    const options = 'virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:10';
    for (const [cmdline, expected] of [
      ['console=ttyS0', `console=ttyS0 ${options}`],
      ['', options],
      ['quiet a--b -- --verbose', `quiet a--b ${options} -- --verbose`],
      ['-- x', `${options} -- x`],
    ] as const) {
      const { memory, bootParams } = load({ cmdline, windows });
      const bytes = memory.bytes(bootParams.readUInt32LE(0x228), expected.length + 1);
      assert.equal(bytes.toString('latin1'), `${expected}\0`);
    }
  });

  it('counts the options for virtio devices among the bytes that a kernel accepts', () => {
    const kernelPath = bzImageFile({ cmdlineSize: 39 });
    assert.throws(() => readBoot(config({ kernelPath, cmdline: 'quiet', windows: virtioWindows(1) })), {
      code: 'USAGE',
      message:
        'the kernel command line has 40 bytes, of which livesnap adds 35 for its devices; this kernel accepts at most 39',
    });
  });

  it('refuses a command line that is too long for the kernel or contains a NUL', () => {
    assert.throws(() => readBoot(config({ cmdline: 'x'.repeat(2048) })), {
      code: 'USAGE',
      message: /has 2048 bytes; this kernel accepts at most 2047/,
    });
    const kernelPath = bzImageFile({ cmdlineSize: 10 });
    assert.throws(() => readBoot(config({ kernelPath, cmdline: 'console=tty' })), { message: /at most 10/ });
    assert.throws(() => readBoot(config({ cmdline: 'a\0b' })), { code: 'USAGE' });
    const endless = bzImageFile({ cmdlineSize: 0xffff_ffff });
    assert.throws(() => readBoot(config({ kernelPath: endless, cmdline: 'x'.repeat(70_000) })), {
      code: 'USAGE',
      message: /has 70000 bytes; livesnap accepts at most 65535/,
    });
  });

  it('refuses a number of vCPUs that is out of range', () => {
    for (const cpus of [0, -1, 1.5, 255, 10_000, Number.NaN]) {
      assert.throws(() => readBoot(config({ cpus })), { code: 'USAGE', hint: 'Give between 1 and 254.' });
    }
  });

  it('refuses a memory size that is out of range or too small for the kernel', () => {
    assert.throws(() => readBoot(config({ memoryBytes: 0 })), { code: 'USAGE' });
    assert.throws(() => readBoot(config({ memoryBytes: 16 * MIB })), {
      code: 'BAD_IMAGE',
      hint: 'Give the machine more memory: at least 17M.',
    });
    readBoot(config({ memoryBytes: 17 * MIB }));
  });
});
