/** The two halves meet in src/page-stream.ts only. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../src/native/addon.js';

const importsOf = (folder: string): string[] =>
  readdirSync(join(projectRoot, 'src', folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .flatMap((name) => {
      const text = readFileSync(join(projectRoot, 'src', folder, name), 'utf8');
      const imports = text.matchAll(/(?:from|import\(|import) ?'([^']+)'/g);
      return [...imports].map(([, path]) => `${folder}/${name}: ${path}`);
    });

describe('the seam', () => {
  for (const [folder, other] of [
    ['vmm', 'store'],
    ['store', 'vmm'],
  ] as const)
    it(`lets src/${folder} import nothing of src/${other}`, () => {
      const found = importsOf(folder);
      assert.ok(found.some((line) => line.endsWith('../page-stream.js')));
      assert.deepEqual(
        found.filter((line) => line.includes(`../${other}/`)),
        [],
      );
    });

  it('lets the main thread of a machine load nothing of the store but how waits are given up', () => {
    const found = importsOf('server').filter(
      (line) => line.includes('/store/') && !line.startsWith('server/store-thread.ts'),
    );
    assert.deepEqual(found, ['server/store-thread-client.ts: ../store/waits.js']);
  });
});
