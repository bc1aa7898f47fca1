import assert from 'node:assert/strict';
import * as check from '../../../src/cli/check.js';

const { noDamage } = check;
const linesOf = (problems: Parameters<typeof check.linesOf>[0]): string[] =>
  check.linesOf(problems).map(String);

describe('the output of check', () => {
  const problem = (file: string, offset: number | null, ...snapshots: string[]) => ({
    file,
    offset,
    snapshots,
    regions: [] as { snapshot: string; region: string }[],
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
      `packs/b at 17: is wrong (snapshot ${'a'.repeat(12)})`,
    ]);
  });

  it('names the regions, each with its snapshots', () => {
    const shared = {
      ...problem('packs/b', 17, 'a', 'b', 'c'),
      regions: [
        { snapshot: 'a', region: 'disk1' },
        { snapshot: 'b', region: 'disk1' },
        { snapshot: 'b', region: 'ram@0x0' },
      ],
    };
    const expected = '(disk1 of snapshots a, b; ram@0x0 of snapshot b; snapshot c)';
    assert.deepEqual(linesOf([shared]), [`packs/b at 17: is wrong ${expected}`]);
    const lines = linesOf(Array.from({ length: 12 }, () => shared));
    assert.equal(lines.at(-1), `packs/b: 2 more problems ${expected}`);
  });

  it('has the first problems of a file with many, then the number of the others and their snapshots', () => {
    const many = Array.from({ length: 3000 }, (_, i) => problem('packs/b', i, i === 2999 ? 'c' : 'd'));
    const lines = linesOf([problem('tags/a', null), ...many, problem('tags/z', 0)]);
    assert.equal(lines.length, 13);
    assert.equal(lines[1], 'packs/b at 0: is wrong (snapshot d)');
    assert.equal(lines[11], 'packs/b: 2,990 more problems (snapshots c, d)');
    assert.equal(lines[12], 'tags/z at 0: is wrong');
  });
});
