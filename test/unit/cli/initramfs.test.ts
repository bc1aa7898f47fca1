import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { initramfsOf } from '../../../src/cli/initramfs.js';

describe('an initramfs', () => {
  const program = Buffer.from('#!/bin/sh\necho hello\n');

  it('is a cpio archive of aligned entries, with the program and the end', () => {
    const archive = initramfsOf(program);
    assert.equal(archive.length % 4, 0);
    assert.equal(archive.toString('latin1', 0, 6), '070701');
    const sizeAt = 6 + 6 * 8;
    assert.equal(Number.parseInt(archive.toString('latin1', sizeAt, sizeAt + 8), 16), program.length);
    assert.equal(archive.toString('latin1', 110, 115), 'init\0');
    assert.deepEqual(archive.subarray(116, 116 + program.length), program);
    assert.ok(archive.includes('TRAILER!!!\0'));
  });

  it('is unpacked by cpio', function () {
    const dir = mkdtempSync(join(tmpdir(), 'livesnap-initramfs-'));
    try {
      const { error, status } = spawnSync('cpio', ['-i', '--quiet'], {
        cwd: dir,
        input: initramfsOf(program),
      });
      if (error !== undefined) this.skip(); // this host has no cpio
      assert.equal(status, 0);
      assert.deepEqual(readFileSync(join(dir, 'init')), program);
      assert.equal(statSync(join(dir, 'init')).mode & 0o777, 0o755);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
