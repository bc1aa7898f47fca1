import assert from 'node:assert/strict';
import { type TreeOptions, treeRows } from '../../../../src/web/state/snapshot-tree.js';
import type { Snapshot } from '../../../../src/web/state/types.js';
import { busyHost, idOf, machine, snapshot } from '../../../web/made-up.js';

const ALL: TreeOptions = { filter: '', unfolded: new Set() };

const text = (snapshots: readonly Snapshot[], options = ALL, at: string | null = null): string[] =>
  treeRows(snapshots, at === null ? [] : [machine('web', 1, { snapshot: at })], options).map((row) =>
    row.kind === 'folded'
      ? `${row.lines}${row.snapshots.length} untagged`
      : `${row.title === null ? '' : `${row.title} `}${row.lines}${row.snapshot.tags.join() || Number(`0x${row.snapshot.id}`)}`,
  );

const chain = (count: number, tagged: Record<number, string> = {}): Snapshot[] =>
  Array.from({ length: count }, (_, i) =>
    snapshot(i + 1, { tags: tagged[i + 1] === undefined ? [] : [tagged[i + 1]!] }),
  );

describe('the tree of snapshots', () => {
  it('is a list for a chain, and folds what has no tag', () => {
    assert.deepEqual(text(chain(1)), ['web ─ 1']);
    assert.deepEqual(text(chain(7, { 1: 'base', 7: 'last' })), ['web ┬ base', '├ 5 untagged', '└ last']);
    assert.deepEqual(
      text(chain(4, { 1: 'base', 4: 'last' })),
      ['web ┬ base', '├ 2', '├ 3', '└ last'],
      'a run of two',
    );
  });

  it('shows the snapshot that a machine is at, and what is unfolded', () => {
    assert.deepEqual(text(chain(8, { 1: 'base' }), ALL, idOf(5)), [
      'web ┬ base',
      '├ 3 untagged',
      '├ 5',
      '└ 3 untagged',
    ]);
    assert.deepEqual(text(chain(5, { 1: 'base' }), { filter: '', unfolded: new Set([`run-${idOf(2)}`]) }), [
      'web ┬ base',
      '└ 4 untagged',
      ...[2, 3, 4, 5].map((id) => `  · ${id}`),
    ]);
  });

  it('continues a chain with the larger child, and writes the others below their parent', () => {
    const branch = snapshot(100, { parent: idOf(2), tags: ['side'] });
    const leaf = snapshot(101, { parent: idOf(100), tags: ['leaf'] });
    assert.deepEqual(text([...chain(5, { 1: 'a', 2: 'b', 3: 'c', 4: 'd', 5: 'e' }), branch, leaf]), [
      'web ┬ a',
      '├ b',
      '│ ├ side',
      '│ └ leaf',
      '├ c',
      '├ d',
      '└ e',
    ]);
  });

  it('shows a snapshot whose parent was deleted as a root, and forged circles at all', () => {
    assert.deepEqual(text(chain(6).slice(3)), ['web ┬ 4', '├ 5', '└ 6']);
    const circle = [snapshot(1, { parent: idOf(2) }), snapshot(2, { parent: idOf(1) })];
    assert.deepEqual(text(circle), ['web ┬ 1', '└ 2']);
    assert.deepEqual(text([snapshot(3, { parent: idOf(3) })]), ['web ─ 3']);
  });

  it('is a flat list of what a filter finds, newest first', () => {
    const { snapshots } = busyHost(100);
    const rows = treeRows(snapshots, [], { ...ALL, filter: 'WEB nightly' });
    assert.deepEqual(
      rows.map((row) => row.kind === 'snapshot' && row.snapshot.tags[0]),
      ['nightly-1', 'nightly-0'],
    );
    assert.deepEqual(treeRows(snapshots, [], { ...ALL, filter: 'nothing like it' }), []);
  });

  it('has each snapshot once, also of long chains', () => {
    const long = chain(20_000, { 1: 'base' });
    const rows = treeRows(long, [], ALL);
    assert.equal(rows.length, 2);
  });
});
