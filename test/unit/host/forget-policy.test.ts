import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  type CalendarSpan,
  formatSpan,
  type GroupKey,
  type KeepRules,
  PERIODS,
  planForget,
} from '../../../src/host/forget-policy.js';
import type { SnapshotSummary } from '../../../src/page-stream.js';
import { summary } from './summaries.js';

const NOW = new Date(2026, 5, 15, 12).getTime();
const MACHINE: readonly GroupKey[] = [{ by: 'machine' }];
const span = (over: Partial<CalendarSpan>): CalendarSpan => ({
  years: 0,
  months: 0,
  days: 0,
  hours: 0,
  ...over,
});

/** The numbers of the kept snapshots with their reasons, newest first. All snapshots are one group. */
function kept(snapshots: readonly SnapshotSummary[], rules: KeepRules): [number, string][] {
  const [group] = planForget(snapshots, rules, [], NOW);
  assert.equal(group!.keep.length + group!.remove.length, snapshots.length);
  return group!.keep.map(({ snapshot, reasons }) => [Number.parseInt(snapshot.id, 16), reasons.join(', ')]);
}

describe('the policy of forget', () => {
  it('keeps the newest', () => {
    const all = [1, 2, 3, 4].map((n) => summary(n, new Date(2026, 0, n)));
    assert.deepEqual(kept(all, { last: 2 }), [
      [4, 'last'],
      [3, 'last'],
    ]);
    assert.equal(kept(all, { last: 9 }).length, 4);
    assert.equal(kept(all, { last: Infinity }).length, 4);
  });

  it('keeps the newest of each period that has snapshots', () => {
    // 12 Sundays, as in the manual of restic.
    const all = Array.from({ length: 12 }, (_, week) => summary(week, new Date(2019, 8, 1 + 7 * week, 11)));
    assert.deepEqual(kept(all, { daily: 4 }), [
      [11, 'daily'],
      [10, 'daily'],
      [9, 'daily'],
      [8, 'daily'],
    ]);
    assert.deepEqual(kept(all, { monthly: 2 }), [
      [11, 'monthly'],
      [8, 'monthly'],
    ]);
  });

  it('begins weeks on Monday, and periods at their local start', () => {
    const sunday = summary(1, new Date(2026, 0, 4, 23, 59, 59));
    const monday = summary(2, new Date(2026, 0, 5, 0, 0));
    const nextSunday = summary(3, new Date(2026, 0, 11, 23, 59));
    assert.deepEqual(kept([sunday, monday, nextSunday], { weekly: 2 }), [
      [3, 'weekly'],
      [1, 'weekly'],
    ]);
    const hours = [
      summary(1, new Date(2026, 0, 4, 9, 59, 59)),
      summary(2, new Date(2026, 0, 4, 10, 0)),
      summary(3, new Date(2026, 0, 4, 10, 59)),
    ];
    assert.deepEqual(kept(hours, { hourly: 2 }), [
      [3, 'hourly'],
      [1, 'hourly'],
    ]);
    const years = [summary(1, new Date(2024, 11, 31, 23)), summary(2, new Date(2025, 0, 1))];
    assert.deepEqual(kept(years, { yearly: 2 }).length, 2);
    assert.deepEqual(kept(years, { weekly: 1 }), [[2, 'weekly']], 'a week goes across the end of a year');
  });

  it('keeps the oldest snapshot while a rule may keep more', () => {
    const all = [1, 2, 3, 4].map((n) => summary(n, new Date(2026, 0, 1, n)));
    assert.deepEqual(kept(all, { daily: 3 }), [
      [4, 'daily'],
      [1, 'oldest daily'],
    ]);
    assert.deepEqual(kept(all, { daily: 1 }), [[4, 'daily']]);
  });

  it('keeps a snapshot for several reasons', () => {
    const all = [
      summary(1, new Date(2025, 0, 1), { tags: ['release-1', 'x'] }),
      summary(2, new Date(2026, 0, 1)),
      summary(3, new Date(2026, 0, 2)),
    ];
    assert.deepEqual(
      kept(all, { last: 1, daily: 1, yearly: 2, within: span({ days: 1 }), tags: ['release-*', 'x'] }),
      [
        [3, 'within 1d, last, daily, yearly'],
        [1, 'tag release-*, tag x, yearly'],
      ],
    );
  });

  it('keeps what was made within a span of the calendar before the newest', () => {
    const newest = summary(9, new Date(2026, 2, 31, 12));
    const times = [new Date(2026, 1, 28, 12), new Date(2026, 2, 3, 12), new Date(2026, 2, 3, 12, 0, 1)];
    const all = [newest, ...times.map((time, i) => summary(i, time))];
    // A month before March 31 is "February 31", which is March 3.
    assert.deepEqual(
      kept(all, { within: span({ months: 1 }) }).map(([n]) => n),
      [9, 2],
    );
    assert.deepEqual(kept(all, { within: span({ hours: 1 }) }), [[9, 'within 1h']]);
    assert.equal(kept(all, { within: span({ years: 1, days: 3 }) }).length, 4);
    assert.equal(formatSpan({ years: 2, months: 5, days: 7, hours: 3 }), '2y5m7d3h');
  });

  it('keeps snapshots from the future, and does not count them', () => {
    const all = [
      summary(1, new Date(2026, 0, 1)),
      summary(2, new Date(2026, 0, 2)),
      summary(3, new Date(2030, 0, 1)),
    ];
    assert.deepEqual(kept(all, { last: 1, within: span({ hours: 1 }) }), [
      [3, 'in the future'],
      [2, 'within 1h, last'],
    ]);
  });

  it('applies the rules to each group', () => {
    const at = new Date(2026, 0, 1);
    const all = [
      summary(1, at, { vm: 'a', labels: { course: 'os' } }),
      summary(2, at, { vm: 'b', labels: { course: 'os' } }),
      summary(3, at, { vm: 'a', kind: 'disk' }),
      summary(4, at, { vm: 'a', kind: 'file', labels: { course: 'net' } }),
      summary(5, at, { vm: null, kind: 'file' }),
    ];
    const titles = (...keys: GroupKey[]): string[] =>
      planForget(all, { last: 1 }, keys, NOW).map(
        ({ title, keep, remove }) => `${title}: ${keep.length}/${remove.length}`,
      );
    assert.deepEqual(titles(...MACHINE), [
      ...['disks of a: 1/0', 'file -: 1/0', 'file a: 1/0', 'machine a: 1/0', 'machine b: 1/0'],
    ]);
    const course: GroupKey = { by: 'label', label: 'course' };
    assert.deepEqual(titles(course), ['course=net: 1/0', 'course=os: 1/1', 'no label course: 1/1']);
    assert.equal(titles(course, ...MACHINE).length, 5);
    assert.deepEqual(titles(), ['all snapshots: 1/4']);
    assert.deepEqual(planForget([], { last: 1 }, MACHINE, NOW), []);
  });

  it('refuses to work without a rule, or to leave nothing of a group', () => {
    const all = [
      summary(1, new Date(2026, 0, 1), { tags: ['x'] }),
      summary(2, new Date(2026, 0, 2), { vm: 'other' }),
    ];
    assert.throws(() => planForget(all, {}, MACHINE, NOW), { code: 'USAGE', message: /no rule says/ });
    assert.throws(() => planForget(all, { tags: [] }, MACHINE, NOW), { code: 'USAGE' });
    assert.throws(() => planForget(all, { tags: ['x'] }, MACHINE, NOW), {
      code: 'USAGE',
      message: 'no rule keeps any snapshot of the group "machine other"',
    });
    for (const wrong of ['x', '3', Number.NaN, -1, 1.5, null])
      assert.throws(
        () => planForget(all, { last: wrong as number }, MACHINE, NOW),
        { code: 'USAGE' },
        `${wrong}`,
      );
  });

  const count = fc.option(fc.oneof(fc.integer({ min: 1, max: 6 }), fc.constant(Infinity)), {
    nil: undefined,
  });
  const rules = fc
    .record({
      ...{ last: count, hourly: count, daily: count, weekly: count, monthly: count, yearly: count },
      within: fc.option(
        fc.record({ years: fc.constant(0), months: fc.nat(2), days: fc.nat(9), hours: fc.nat(30) }),
        {
          nil: undefined,
        },
      ),
      tags: fc.subarray(['a*', 'b']),
    })
    .map((all): KeepRules => ({ ...all, last: all.last ?? 1 }));
  const snapshots = fc
    .uniqueArray(
      fc.record({
        n: fc.nat(10_000),
        // Two years around now, mostly close together.
        hours: fc.oneof(fc.integer({ min: -200, max: 24 }), fc.integer({ min: -17_000, max: 100 })),
        vm: fc.constantFrom('web', 'db'),
        tags: fc.subarray(['a1', 'b', 'c']),
      }),
      { selector: ({ n }) => n, maxLength: 60 },
    )
    .map((all) =>
      all.map(({ n, hours, ...over }) => summary(n, new Date(NOW + hours * 3_600_000 - n * 1000), over)),
    );

  it('never removes what a rule keeps, and partitions each group (properties)', () => {
    fc.assert(
      fc.property(snapshots, rules, (all, given) => {
        const groups = planForget(all, given, MACHINE, NOW);
        const ids = groups.flatMap(({ keep, remove }) => [
          ...keep.map(({ snapshot }) => snapshot),
          ...remove,
        ]);
        assert.deepEqual(ids.map(({ id }) => id).sort(), all.map(({ id }) => id).sort());
        for (const { keep, remove } of groups) {
          const ms = ({ createdAt }: SnapshotSummary): number => Date.parse(createdAt);
          assert.ok(keep.length > 0 && keep.every(({ reasons }) => reasons.length > 0));
          const past = keep.filter(({ snapshot }) => ms(snapshot) <= NOW).map(({ snapshot }) => snapshot);
          const size = past.length + remove.length;
          assert.ok(past.length >= Math.min(given.last!, size), 'keep-last keeps N');
          // The newest ones, without a gap.
          const last = keep.filter(({ reasons }) => reasons.includes('last')).map(({ snapshot }) => snapshot);
          assert.equal(last.length, Math.min(given.last!, size));
          for (const gone of remove) {
            assert.ok(ms(gone) <= NOW);
            assert.ok(last.every((one) => ms(one) >= ms(gone)));
            for (const pattern of given.tags!)
              assert.ok(!gone.tags.some((tag) => (pattern === 'b' ? tag === 'b' : tag.startsWith('a'))));
            if (given.within) {
              const newest = new Date(Math.max(...past.map(ms)));
              newest.setMonth(newest.getMonth() - given.within.months, newest.getDate() - given.within.days);
              assert.ok(ms(gone) <= newest.getTime() - given.within.hours * 3_600_000);
            }
            // Without a limit, a removed snapshot is not the newest of its period.
            if (given.daily === Infinity)
              assert.ok(
                past.some(
                  (one) =>
                    ms(one) >= ms(gone) &&
                    new Date(one.createdAt).toDateString() === new Date(gone.createdAt).toDateString(),
                ),
              );
          }
          for (const period of PERIODS)
            assert.ok(
              keep.filter(({ reasons }) => reasons.some((each) => each.endsWith(period))).length <=
                (given[period] ?? 0),
            );
        }
      }),
      { numRuns: 500 },
    );
  });

  it('removes nothing more when it is applied again', () => {
    fc.assert(
      fc.property(snapshots, rules, (all, given) => {
        const once = planForget(all, given, MACHINE, NOW).flatMap(({ keep }) =>
          keep.map(({ snapshot }) => snapshot),
        );
        const again = planForget(once, given, MACHINE, NOW);
        assert.deepEqual(
          again.flatMap(({ remove }) => remove),
          [],
        );
      }),
    );
  });
});
