import assert from 'node:assert/strict';
import { closeSync, existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { holdDirectory, makeUploadDirectory, sweepUploads } from '../../../src/jobs/upload-directory.js';

describe('directories of uploads', () => {
  const { TMPDIR } = process.env;
  let base: string;
  beforeEach(() => {
    base = mkdtempSync(join(tmpdir(), 'livesnap-test-'));
    process.env.TMPDIR = base;
  });
  afterEach(() => {
    if (TMPDIR === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = TMPDIR;
    rmSync(base, { recursive: true });
  });

  it('are deleted unless somebody holds them', () => {
    const [held, left] = [makeUploadDirectory(), makeUploadDirectory()];
    writeFileSync(join(left, 'file'), '');
    const fds = [holdDirectory(held), holdDirectory(held)];
    sweepUploads();
    assert.deepEqual([existsSync(held), existsSync(left)], [true, false]);
    closeSync(fds[0]!);
    sweepUploads();
    assert(existsSync(held), 'the other still holds it');
    closeSync(fds[1]!);
    sweepUploads();
    assert(!existsSync(held));
  });

  it('are not followed where they are links, and nothing else is deleted', () => {
    const other = mkdtempSync(join(base, 'other-'));
    writeFileSync(join(other, 'file'), '');
    symlinkSync(other, join(base, 'livesnap-upload-AAAAAA'));
    writeFileSync(join(base, 'livesnap-upload-BBBBBB'), 'a file');
    sweepUploads();
    assert(existsSync(join(other, 'file')) && existsSync(join(base, 'livesnap-upload-BBBBBB')));
  });
});
