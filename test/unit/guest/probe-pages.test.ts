import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import xxhash from 'xxhash-wasm';
import { fillPage, textPage } from './reference-pages.js';

const SOURCES = resolve('guest/probe');
const PAGE_BYTES = 4096;

// The guest's own code, built for this host: `pages fill|text SEED FIRST COUNT` writes pages, `pages sum` sums stdin's.
const DRIVER = `
#include <stdio.h>
#include <stdlib.h>
#include "pages.h"
int main(int argc, char **argv) {
  static char page[PAGE_SIZE];
  if (argc < 5) {
    struct xxh64 state;
    xxh64_start(&state);
    while (fread(page, PAGE_SIZE, 1, stdin) == 1) xxh64_page(&state, page);
    printf("%016llx", (unsigned long long)xxh64_end(&state));
    return 0;
  }
  unsigned long long seed = strtoull(argv[2], 0, 10), first = strtoull(argv[3], 0, 10);
  for (int i = 0; i < atoi(argv[4]); i++) {
    (argv[1][0] == 'f' ? page_fill : page_text)(page, seed, first + i);
    fwrite(page, PAGE_SIZE, 1, stdout);
  }
}`;

describe('the pages of the probe guest', () => {
  let dir: string;
  const pages = (args: string[], input?: Buffer): Buffer =>
    execFileSync(join(dir, 'pages'), args, { input, maxBuffer: 1 << 24 });

  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-probe-'));
    writeFileSync(join(dir, 'driver.c'), DRIVER);
    const files = [join(dir, 'driver.c'), join(SOURCES, 'pages.c')];
    execFileSync('gcc', ['-O2', '-Wall', '-Werror', '-I', SOURCES, '-o', join(dir, 'pages'), ...files]);
  });
  after(() => rmSync(dir, { recursive: true }));

  for (const [name, reference] of [
    ['fill', fillPage],
    ['text', textPage],
  ] as const)
    it(`${name} as the README specifies them, for small and large seeds and indices`, () => {
      for (const seed of [0n, 7n, (1n << 64n) - 1n])
        for (const index of [0n, 255n, 1_000_000n]) {
          const page = pages([name, `${seed}`, `${index}`, '1']);
          assert.ok(page.equals(reference(seed, index)), `seed ${seed} page ${index}`);
        }
    });

  it('no two of a command, nor of two seeds, are alike', () => {
    const seen = new Set<string>();
    for (const name of ['fill', 'text'])
      for (const seed of ['1', '2']) {
        const bytes = pages([name, seed, '0', '512']);
        for (let at = 0; at < bytes.length; at += PAGE_BYTES)
          seen.add(bytes.toString('latin1', at, at + PAGE_BYTES));
      }
    assert.equal(seen.size, 4 * 512);
  });

  it('are summed by XXH64', async () => {
    const { h64Raw } = await xxhash();
    for (const count of [1, 2, 100]) {
      const bytes = Buffer.concat([pages(['text', '3', '0', `${count}`]), pages(['fill', '3', '0', '1'])]);
      assert.equal(pages(['sum'], bytes).toString(), h64Raw(bytes, 0n).toString(16).padStart(16, '0'));
    }
  });
});
