import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { readKernel } from '../../../../src/vmm/boot/read-kernel.js';
import { random } from '../seeded-random.js';
import { bzImage, elfKernel, ImageDirectory, lz4Payload, MIB } from './kernel-fixtures.js';

const RAM_END = 64 * MIB;

describe('readKernel', () => {
  let dir: ImageDirectory;
  before(() => {
    dir = new ImageDirectory();
  });
  after(() => dir.close());

  it('reads an ELF vmlinux and a bzImage', () => {
    assert.equal(readKernel(dir.file('vmlinux', elfKernel()), RAM_END).path, 'elf');
    const gzip = dir.file('bzImage', bzImage(gzipSync(elfKernel())));
    assert.equal(readKernel(gzip, RAM_END).path, 'bzimage payload (gzip)');
  });

  it('refuses a missing file by its path', () => {
    for (const path of [join(dir.path, 'nothing'), join(dir.file('file', 'x'), 'below')]) {
      assert.throws(() => readKernel(path, RAM_END), {
        code: 'NO_SUCH_FILE',
        message: `there is no kernel ${path}`,
      });
    }
  });

  it('refuses a directory, a FIFO and an empty file', () => {
    assert.throws(() => readKernel(dir.path, RAM_END), {
      code: 'BAD_IMAGE',
      message: /not a regular file/,
    });
    assert.throws(() => readKernel(dir.file('empty', ''), RAM_END), {
      code: 'BAD_IMAGE',
      message: /is empty/,
    });
    const fifo = join(dir.path, 'fifo');
    execFileSync('mkfifo', [fifo]);
    assert.throws(() => readKernel(fifo, RAM_END), { code: 'BAD_IMAGE', message: /not a regular file/ });
  });

  for (const [what, bytes] of [
    ['a text file', 'linux\n'.repeat(1000)],
    ['one byte', 'x'],
    ['a gzip file', gzipSync(elfKernel())],
    ['the first half of a boot sector', bzImage(gzipSync(elfKernel())).subarray(0, 0x180)],
  ] as const) {
    it(`refuses ${what}, with a hint`, () => {
      const path = dir.file('other', bytes);
      assert.throws(() => readKernel(path, RAM_END), {
        code: 'BAD_IMAGE',
        message: `${path} is neither a bzImage nor an ELF kernel`,
        hint: /vmlinuz/,
      });
    });
  }

  it('refuses random bytes in the headers, or stays within memory', () => {
    const seed = Number(process.env.LIVESNAP_SEED ?? Date.now() % 1_000_000);
    const below = random(seed);
    const originals = [elfKernel(), bzImage(gzipSync(elfKernel())), bzImage(lz4Payload(elfKernel()))];
    for (let round = 0; round < 600; round++) {
      const bytes = Buffer.from(originals[round % originals.length]!);
      const headerAt = round % originals.length === 0 ? 0 : 0x1f1;
      for (let i = 0; i <= below(3); i++) bytes[Math.floor(headerAt + below(0x80))] = Math.floor(below(256));
      try {
        const { segments, entry } = readKernel(dir.file('fuzzed', bytes), RAM_END);
        for (const { gpa, sizeBytes, bytes: content } of segments) {
          assert(gpa >= MIB && gpa + sizeBytes <= RAM_END && content.length <= sizeBytes);
        }
        assert(segments.some(({ gpa, sizeBytes }) => entry >= gpa && entry < gpa + sizeBytes));
      } catch (error) {
        const { code, stack } = error as { code?: string; stack?: string };
        assert.equal(code, 'BAD_IMAGE', `LIVESNAP_SEED=${seed}, round ${round}: ${stack}`);
      }
    }
  });
});
