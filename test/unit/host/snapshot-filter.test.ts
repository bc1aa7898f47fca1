import assert from 'node:assert/strict';
import type { LivesnapError } from '../../../src/errors.js';
import {
  chooseSnapshots,
  parseSnapshotFilter,
  type SnapshotOrder,
  sortSnapshots,
} from '../../../src/host/snapshot-filter.js';
import type { SnapshotSummary } from '../../../src/page-stream.js';
import { summary } from './summaries.js';

const base = summary(0xa1, '2026-01-01', { tags: ['base', 'release-1'], labels: { course: 'os' } });
const child = summary(0xa2, '2026-01-02', { parent: base.id, tags: ['child'], labels: { course: 'net' } });
const orphan = summary(0xa3, '2026-01-03', { vm: 'db', parent: 'f'.repeat(32), labels: { course: '' } });
const file = summary(0xb1, '2026-01-04', { kind: 'file', vm: null, tags: ['file'] });
const disk = summary(0xb2, '2026-01-05', { kind: 'disk', vm: 'db-2', parent: base.id });
const all = [base, child, orphan, file, disk];

const pass = (...filters: string[]): SnapshotSummary[] =>
  chooseSnapshots(all, { filters: filters.map(parseSnapshotFilter) });

describe('a filter of snapshots', () => {
  it('selects by label, name, tag, kind, parent and by having no tag', () => {
    assert.deepEqual(pass(), all);
    assert.deepEqual(pass('label=course'), [base, child, orphan]);
    assert.deepEqual(pass('label=course=os'), [base]);
    assert.deepEqual(pass('label=course='), [orphan]);
    assert.deepEqual(pass('label=constructor'), []);
    assert.deepEqual(pass('name=web'), [base, child]);
    assert.deepEqual(pass('name=db*'), [orphan, disk]);
    assert.deepEqual(pass('name=*'), [base, child, orphan, disk]);
    assert.deepEqual(pass('tag=release-?'), [base]);
    assert.deepEqual(pass('tag=rel'), []);
    assert.deepEqual(pass('kind=file'), [file]);
    assert.deepEqual(pass('untagged'), [orphan, disk]);
    for (const parent of ['base', base.id, 'release-1'])
      assert.deepEqual(pass(`parent=${parent}`), [child, disk]);
    assert.deepEqual(pass('parent=ff'), [orphan], 'a parent that was removed');
    assert.deepEqual(pass(`parent=${child.id}`), []);
  });

  it('means or with filters of the same key, and with those of different keys and', () => {
    assert.deepEqual(pass('kind=file', 'kind=disk'), [file, disk]);
    assert.deepEqual(pass('label=course=os', 'label=course=net', 'tag=child'), [child]);
    assert.deepEqual(pass('name=db*', 'untagged', 'kind=machine'), [orphan]);
    assert.deepEqual(pass('parent=base', 'parent=ff', 'untagged'), [orphan, disk]);
  });

  it('refuses what is no filter, and names the form', () => {
    const hints: Record<string, RegExp> = {
      size: /one of label=KEY.*untagged/,
      'size=3': /one of label/,
      label: /Use label=KEY or label=KEY=VALUE\./,
      'label=': /label=KEY/,
      'label==x': /label=KEY/,
      'name=': /name=PATTERN/,
      tag: /tag=PATTERN/,
      'kind=vm': /kind=machine, kind=file or kind=disk/,
      parent: /parent=SNAPSHOT/,
      'untagged=yes': /Use untagged\./,
      '': /one of/,
      toString: /one of/,
    };
    for (const [text, hint] of Object.entries(hints))
      assert.throws(
        () => parseSnapshotFilter(text),
        (error: LivesnapError) => {
          assert.deepEqual([error.code, error.message], ['USAGE', `${JSON.stringify(text)} is not a filter`]);
          assert.match(error.hint!, hint);
          return true;
        },
      );
  });

  it('refuses a parent that is unknown or ambiguous', () => {
    assert.throws(() => pass('parent=nobody'), { code: 'NO_SUCH_SNAPSHOT' });
    assert.throws(() => pass('parent=0'), { code: 'AMBIGUOUS', hint: /and others/ });
  });

  it('selects by time: from `since`, before `until`', () => {
    const [from, to] = [child, file].map(({ createdAt }) => Date.parse(createdAt));
    assert.deepEqual(chooseSnapshots(all, { sinceMs: from }), [child, orphan, file, disk]);
    assert.deepEqual(chooseSnapshots(all, { untilMs: to }), [base, child, orphan]);
    const filters = [parseSnapshotFilter('untagged')];
    assert.deepEqual(chooseSnapshots(all, { sinceMs: from, untilMs: to, filters }), [orphan]);
  });
});

describe('the order of snapshots', () => {
  it('is by time, size, stored bytes or name, and then by time and ID', () => {
    const a = summary(3, '2026-01-01', { vm: 'b', memoryBytes: 5, diskBytes: 5, storedBytes: 1 });
    const b = summary(2, '2026-01-01', { vm: 'a', memoryBytes: 9, storedBytes: 3 });
    const c = summary(1, '2026-01-02', { vm: 'a', memoryBytes: 10, storedBytes: 2 });
    const d = summary(4, '2025-12-31', { vm: null, memoryBytes: 0, storedBytes: 2 });
    const sorted = (order: SnapshotOrder): number[] =>
      sortSnapshots([a, b, c, d], order).map(({ id }) => Number.parseInt(id, 16));
    assert.deepEqual(sorted('created'), [4, 2, 3, 1]);
    assert.deepEqual(sorted('size'), [3, 1, 2, 4]);
    assert.deepEqual(sorted('stored'), [2, 4, 1, 3]);
    assert.deepEqual(sorted('name'), [4, 2, 1, 3]);
  });
});
