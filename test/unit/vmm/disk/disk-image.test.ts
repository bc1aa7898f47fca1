import assert from 'node:assert/strict';
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { lockBytes } from '../../../../src/native/locks.js';
import { openDiskImage } from '../../../../src/vmm/disk/disk-image.js';
import { dropScratch, loopDevice } from '../../../store/scratch.js';

describe('openDiskImage', () => {
  let dir: string;
  let path: string;
  const opened: number[] = [];
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-image-'));
    path = join(dir, 'image');
    writeFileSync(path, Buffer.alloc(8192));
  });
  afterEach(function () {
    for (const fd of opened.splice(0)) closeSync(fd);
    dropScratch(this);
    rmSync(dir, { recursive: true });
  });

  const open = (mode: 'rw' | 'ro' | 'cow'): number => {
    const image = openDiskImage(path, mode);
    opened.push(image.fd);
    return image.sizeBytes;
  };

  it('opens a raw image and tells its size', () => {
    assert.equal(open('rw'), 8192);
  });

  for (const [format, magic, offset] of [
    ['qcow2', 'QFI\xfb', 0],
    ['vmdk', 'KDMV', 0],
    ['vmdk', '# Disk DescriptorFile', 0],
    ['vdi', '\x7f\x10\xda\xbe', 64],
    ['vhdx', 'vhdxfile', 0],
    ['vhd', 'conectix', 0],
    ['qed', 'QED\0', 0],
  ] as const)
    it(`refuses ${format}, named by its first bytes`, () => {
      const bytes = Buffer.alloc(8192);
      bytes.write(magic, offset, 'latin1');
      writeFileSync(path, bytes);
      assert.throws(() => open('ro'), {
        code: 'BAD_IMAGE',
        message: `disk image ${path} is in the format ${format}, not raw`,
      });
      assert.deepEqual(readFileSync(path), bytes);
      // The lock is gone with the descriptor.
      truncateSync(path, 0);
      truncateSync(path, 4096);
      assert.equal(open('rw'), 4096);
    });

  it('refuses an empty image, and one that is no whole number of sectors', () => {
    truncateSync(path, 0);
    assert.throws(() => open('ro'), { code: 'BAD_IMAGE', message: /is empty$/ });
    truncateSync(path, 1000);
    assert.throws(() => open('rw'), { code: 'BAD_IMAGE', message: /has 1000 bytes, not a multiple of 512$/ });
  });

  it('refuses what is neither a file nor a block device', () => {
    path = dir;
    for (const mode of ['rw', 'ro'] as const)
      assert.throws(() => open(mode), { code: 'BAD_IMAGE', message: /is a directory$/ });
    path = '/dev/null';
    assert.throws(() => open('ro'), {
      code: 'BAD_IMAGE',
      message: /neither a regular file nor a block device$/,
    });
    path = join(dir, 'missing');
    assert.throws(() => open('rw'), { code: 'NO_SUCH_FILE', message: /does not exist$/ });
  });

  it('locks an image against a second writer, and lets readers share it', () => {
    open('rw');
    for (const mode of ['rw', 'ro', 'cow'] as const)
      assert.throws(() => open(mode), { code: 'NOT_POSSIBLE_NOW', message: /is in use/ });
    closeSync(opened.pop()!);
    open('ro');
    open('cow');
    assert.throws(() => open('rw'), { code: 'NOT_POSSIBLE_NOW', message: /is in use/ });
  });

  it('writes to a block device only while the host does not use it, and reads it at any time', function () {
    truncateSync(path, 1 << 20);
    path = loopDevice(this, path);
    assert.equal(open('rw'), 1 << 20);
    assert.throws(() => open('rw'), { code: 'NOT_POSSIBLE_NOW' });
    closeSync(opened.pop()!);
    opened.push(openSync(path, constants.O_RDONLY | constants.O_EXCL)); // as a mount does
    assert.throws(() => open('rw'), {
      code: 'NOT_POSSIBLE_NOW',
      message: /mounted, or in use by this host/,
    });
    assert.deepEqual([open('ro'), open('cow')], [1 << 20, 1 << 20]);
  });

  it('finds the lock of another program', () => {
    const fd = openSync(path, 'r+');
    opened.push(fd);
    assert(lockBytes(fd, 'exclusive'));
    assert.throws(() => open('cow'), { code: 'NOT_POSSIBLE_NOW' });
  });

  it('tells a qemu that may write from one that only reads', () => {
    const fd = openSync(path, 'r');
    opened.push(fd);
    // As qemu does: the permission to read is byte 100, to write 101. What it shares with others is 200 and later.
    assert(lockBytes(fd, 'shared', { start: 100, length: 1 }));
    assert(lockBytes(fd, 'shared', { start: 201, length: 1 }));
    open('ro');
    open('cow');
    assert.throws(() => open('rw'), { code: 'NOT_POSSIBLE_NOW' });
    assert(lockBytes(fd, 'shared', { start: 101, length: 1 }));
    for (const mode of ['rw', 'ro', 'cow'] as const)
      assert.throws(() => open(mode), { code: 'NOT_POSSIBLE_NOW', message: /is in use/ });
  });
});
