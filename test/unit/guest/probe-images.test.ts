import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';

const BUILD = resolve('guest/build');
const read = (name: string): Buffer => readFileSync(join(BUILD, name));

interface Image {
  readonly setup: Buffer;
  readonly loadAddress: bigint;
  readonly protectedMode: Buffer;
  readonly payload: Buffer;
}

/** Takes a bzImage apart by Documentation/arch/x86/boot.rst, asserting what each field must be. */
function parse(file: Buffer): Image {
  assert.equal(file.toString('latin1', 0x202, 0x206), 'HdrS');
  assert.equal(file.readUInt16LE(0x1fe), 0xaa55);
  assert.ok(file.readUInt16LE(0x206) >= 0x20c, 'a version that has xloadflags');
  assert.equal(0x202 + file.readUInt8(0x201), 0x26c, 'where the header ends, in the jump over it');
  assert.ok(file.readUInt8(0x211) & 1, 'LOADED_HIGH');
  assert.ok(file.readUInt16LE(0x236) & 1, 'XLF_KERNEL_64');
  const setupBytes = (file.readUInt8(0x1f1) + 1) * 512;
  const protectedMode = file.subarray(setupBytes);
  assert.equal(file.readUInt32LE(0x1f4) * 16, protectedMode.length, 'syssize');
  assert.equal(file.toString('latin1', 0x200 + file.readUInt16LE(0x20e)).split('\0')[0], 'livesnap probe');
  const at = file.readUInt32LE(0x248);
  const length = file.readUInt32LE(0x24c);
  assert.ok(length > 0 && at + length <= protectedMode.length, 'the payload is inside');
  return {
    setup: file.subarray(0, setupBytes),
    loadAddress: file.readBigUInt64LE(0x258),
    protectedMode,
    payload: protectedMode.subarray(at, at + length),
  };
}

describe('the images of the probe guest', () => {
  it('probe.elf is a static x86-64 executable of one segment, entered at its start', () => {
    const elf = read('probe.elf');
    assert.equal(elf.readUInt32BE(0), 0x7f454c46);
    assert.equal(elf.readUInt8(4), 2, 'ELFCLASS64');
    assert.equal(elf.readUInt16LE(16), 2, 'ET_EXEC');
    assert.equal(elf.readUInt16LE(18), 62, 'EM_X86_64');
    assert.equal(elf.readUInt16LE(56), 1, 'e_phnum');
    const segment = elf.subarray(Number(elf.readBigUInt64LE(32)));
    assert.equal(segment.readBigUInt64LE(16), segment.readBigUInt64LE(24), 'virtual is physical');
    assert.equal(segment.readBigUInt64LE(24), elf.readBigUInt64LE(24), 'the entry comes first');
    assert.equal(segment.readBigUInt64LE(24) + segment.readBigUInt64LE(40), 0x400000n, 'up to the area');
  });

  it('the payload of probe.bzImage is probe.elf under gzip', () => {
    assert.ok(gunzipSync(parse(read('probe.bzImage')).payload).equals(read('probe.elf')));
  });

  it('the payload of probe-raw.bzImage has the magic of no compressor, and is no ELF', () => {
    const { payload } = parse(read('probe-raw.bzImage'));
    assert.equal(payload.toString('latin1', 0, 8), 'PROBERAW');
  });

  for (const name of ['probe.bzImage', 'probe-raw.bzImage'])
    it(`${name} carries at its own entry what that copies into place`, () => {
      const image = parse(read(name));
      const elf = read('probe.elf');
      const segment = elf.subarray(Number(elf.readBigUInt64LE(32)));
      const offset = Number(segment.readBigUInt64LE(8));
      const memory = elf.subarray(offset, offset + Number(segment.readBigUInt64LE(32)));
      const words = image.protectedMode.readUInt32LE(0x248);
      assert.ok(words * 8 >= memory.length);
      const flat = image.protectedMode.subarray(0x250, 0x250 + memory.length);
      assert.ok(flat.equals(memory));
      const end = Number(image.loadAddress) + image.protectedMode.length;
      assert.ok(end <= Number(segment.readBigUInt64LE(24)), 'the copy does not run over itself');
    });

  it('are built once: a second make changes nothing and says nothing', () => {
    const files = ['probe.elf', 'probe.bzImage', 'probe-raw.bzImage'];
    const stamps = (): number[] => files.map((file) => statSync(join(BUILD, file)).mtimeMs);
    const make = (): string =>
      execFileSync('make', ['-C', 'guest', '--no-print-directory'], { encoding: 'utf8' });
    make();
    const before = stamps();
    assert.equal(make(), '');
    assert.deepEqual(stamps(), before);
  });
});
