/** SQLite creates and removes files beside the index at any time. Whoever looks at them must not fail for that. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { requirePlainIndex } from '../../src/store/disk/layout.js';
import { requireWritableIndex } from '../../src/store/index/index-files.js';
import { dropScratch, newStore } from './scratch.js';

const LOOKS = 20_000;

describe('the files beside the index', () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const suffix of ['-journal', '-wal'])
    it(`may be removed between two looks at them (store.db${suffix})`, async function () {
      const { store, dir } = newStore(this);
      store.close();
      const path = join(dir, `store.db${suffix}`);
      const script = `const { writeFileSync, rmSync } = require('node:fs');
        console.log('begun');
        for (;;) { writeFileSync(${JSON.stringify(path)}, 'x'); rmSync(${JSON.stringify(path)}); }`;
      const other = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
      try {
        await once(other.stdout, 'data');
        for (let i = 0; i < LOOKS; i++) {
          requirePlainIndex(dir);
          requireWritableIndex(dir);
        }
      } finally {
        other.kill('SIGKILL');
        await once(other, 'exit');
      }
      assert.equal(other.signalCode, 'SIGKILL');
    });
});
