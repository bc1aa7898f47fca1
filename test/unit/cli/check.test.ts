import assert from 'node:assert/strict';
import { linesOf, noDamage } from '../../../src/cli/check.js';

describe('the output of check', () => {
  const problem = (file: string, offset: number | null, ...snapshots: string[]) => ({
    file,
    offset,
    snapshots,
    message: 'is wrong',
  });

  it('names what was checked if no damage was found', () => {
    assert.match(noDamage(false), /^No damage found in the structure\. .*--read-data/);
    assert.equal(noDamage(true), 'No damage found. All data was verified.');
    assert.match(noDamage({ part: 3, of: 10 }), /3\/10 of the data/);
  });

  it('has a line for each problem', () => {
    assert.deepEqual(linesOf([problem('tags/a', null), problem('packs/b', 17, 'a'.repeat(32))]), [
      'tags/a: is wrong',
      `packs/b at 17: is wrong (snapshots ${'a'.repeat(12)})`,
    ]);
  });

  it('has the first problems of a file with many, then the number of the others and their snapshots', () => {
    const many = Array.from({ length: 3000 }, (_, i) => problem('packs/b', i, i === 2999 ? 'c' : 'd'));
    const lines = linesOf([problem('tags/a', null), ...many, problem('tags/z', 0)]);
    assert.equal(lines.length, 13);
    assert.equal(lines[1], 'packs/b at 0: is wrong (snapshots d)');
    assert.equal(lines[11], 'packs/b: 2,990 more problems (snapshots c, d)');
    assert.equal(lines[12], 'tags/z at 0: is wrong');
  });
});
