import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openOverlayFile } from '../../../../src/vmm/disk/scratch-file.js';

describe('openOverlayFile', () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-'));
    writeFileSync(join(dir, 'file'), '');
  });
  after(() => rmSync(dir, { recursive: true }));

  const cases: readonly (readonly [string, () => string, string, RegExp])[] = [
    ['a directory that does not exist', () => join(dir, 'none'), 'NO_SUCH_FILE', /: it does not exist$/],
    ['a file', () => join(dir, 'file'), 'NO_SUCH_FILE', /: it is not a directory$/],
    // /proc has no unnamed files. A named one is tried instead, which /proc does not have either.
    ['a file system without files', () => '/proc', 'READ_ONLY', /^\/proc .*: no file can be created there$/],
  ];
  for (const [what, path, code, message] of cases)
    it(`refuses ${what}, and names --overlay-dir`, () => {
      assert.throws(() => openOverlayFile(path()), {
        code,
        message,
        hint: 'Choose another directory with --overlay-dir DIR.',
      });
    });
});
