import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { hasMusl } from '../../../src/native/prebuilds.js';

const line = (file: string): string => `7f12b6a43000-7f12b6a57000 r--p 00000000 00:2a 1234      ${file}\n`;

describe('the C library of a process', () => {
  it('is musl where its loader is mapped', () => {
    assert.equal(hasMusl(`${line('/usr/bin/node')}${line('/lib/ld-musl-x86_64.so.1')}`), true);
  });

  it('is another where a file is only named like it', () => {
    assert.equal(hasMusl(`${line('/srv/ld-musl-notes/node')}${line('/lib64/ld-linux-x86-64.so.2')}`), false);
  });

  it('is known of this process', () => {
    const { glibcVersionRuntime } = (
      process.report!.getReport() as { header: { glibcVersionRuntime?: string } }
    ).header;
    assert.equal(hasMusl(readFileSync('/proc/self/maps', 'latin1')), glibcVersionRuntime === undefined);
  });
});
