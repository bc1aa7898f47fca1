/**
 * The policy of `forget`: which snapshots of each group are kept and why, and which are removed. Pure.
 *
 * Rules are those of restic's `forget`. Periods are of the local time zone, and weeks begin on Monday.
 *
 * Invariants:
 * - A snapshot is removed only if no rule keeps it.
 * - A snapshot from the future is kept, and no rule counts it: the clock is wrong, now or when it was made.
 * - Some snapshot of each group is kept.
 */
import { LivesnapError } from '../errors.js';
import { matchesGlob } from '../glob.js';
import type { SnapshotSummary } from '../page-stream.js';

export const PERIODS = ['hourly', 'daily', 'weekly', 'monthly', 'yearly'] as const;
export type Period = (typeof PERIODS)[number];

/** Years, months, days and hours of the calendar. */
export interface CalendarSpan {
  readonly years: number;
  readonly months: number;
  readonly days: number;
  readonly hours: number;
}

/** At least one rule must be given. `Infinity` as a number stands for all. */
export interface KeepRules extends Readonly<Partial<Record<Period, number | undefined>>> {
  /** Keep this many of the newest snapshots. */
  readonly last?: number | undefined;
  /** Keep what was made within this span before the newest snapshot of the group. */
  readonly within?: CalendarSpan | undefined;
  /** Keep snapshots with a tag that matches one of these patterns. */
  readonly tags?: readonly string[] | undefined;
}

/** What the snapshots of a group have in common. None: all snapshots are one group. */
export type GroupKey = { readonly by: 'machine' } | { readonly by: 'label'; readonly label: string };

export interface KeptSnapshot {
  readonly snapshot: SnapshotSummary;
  /** Such as `last`, `daily`, `oldest weekly`, `within 7d`, `tag release-*`. */
  readonly reasons: readonly string[];
}

export interface ForgetGroup {
  /** Such as `machine web`, `file a.bin`, `course=os`; `all snapshots` without a key. */
  readonly title: string;
  /** Newest first. */
  readonly keep: readonly KeptSnapshot[];
  /** Newest first. */
  readonly remove: readonly SnapshotSummary[];
}

/** What must be equal in a group. A machine, its disks and a file of the same name do not replace each other. */
const valuesOf = ({ kind, vm, labels }: SnapshotSummary, keys: readonly GroupKey[]): (string | null)[] =>
  keys.flatMap((key) =>
    key.by === 'machine' ? [kind, vm] : [Object.hasOwn(labels, key.label) ? labels[key.label]! : null],
  );

function titleOf({ kind, vm, labels }: SnapshotSummary, keys: readonly GroupKey[]): string {
  const parts = keys.map((key) => {
    if (key.by === 'machine') return `${kind === 'disk' ? 'disks of' : kind} ${vm ?? '-'}`;
    return Object.hasOwn(labels, key.label) ? `${key.label}=${labels[key.label]}` : `no label ${key.label}`;
  });
  return parts.length === 0 ? 'all snapshots' : parts.join(', ');
}

const HOUR_MS = 3_600_000;

/** The days from 1970-01-01 to a local date. */
const dayOf = (time: Date): number =>
  Math.floor(Date.UTC(time.getFullYear(), time.getMonth(), time.getDate()) / (24 * HOUR_MS));

/** A number for the period that a time is in, by the clock on the wall: an hour that comes twice is one period. */
const PERIOD_OF: Record<Period, (time: Date) => number> = {
  hourly: (time) => dayOf(time) * 24 + time.getHours(),
  daily: dayOf,
  // 1970-01-01 was a Thursday.
  weekly: (time) => Math.floor((dayOf(time) + 3) / 7),
  monthly: (time) => time.getFullYear() * 12 + time.getMonth(),
  yearly: (time) => time.getFullYear(),
};

/** The moment this span before `ms`, in ms since 1970. */
function before(ms: number, { years, months, days, hours }: CalendarSpan): number {
  const time = new Date(ms);
  time.setFullYear(time.getFullYear() - years, time.getMonth() - months, time.getDate() - days);
  return time.getTime() - hours * HOUR_MS;
}

/** `2y5m7d3h`. */
export const formatSpan = ({ years, months, days, hours }: CalendarSpan): string =>
  [
    [years, 'y'],
    [months, 'm'],
    [days, 'd'],
    [hours, 'h'],
  ]
    .filter(([count]) => count !== 0)
    .map((part) => part.join(''))
    .join('');

const createdMs = ({ createdAt }: SnapshotSummary): number => Date.parse(createdAt);

const newestFirst = (a: SnapshotSummary, b: SnapshotSummary): number =>
  createdMs(b) - createdMs(a) || (a.id < b.id ? 1 : -1);

/** How often a rule that counts still keeps, and the period that it kept last. */
interface Count {
  readonly reason: string;
  readonly periodOf: (time: Date, position: number) => number;
  left: number;
  latest: number | null;
}

function countsOf(rules: KeepRules): Count[] {
  const count = (reason: string, left: number | undefined, periodOf: Count['periodOf']): Count[] =>
    left === undefined ? [] : [{ reason, periodOf, left, latest: null }];
  return [
    ...count('last', rules.last, (_, position) => position),
    ...PERIODS.flatMap((period) => count(period, rules[period], PERIOD_OF[period])),
  ];
}

/** Applies the rules to the snapshots of one group. */
function applyRules(
  group: readonly SnapshotSummary[],
  rules: KeepRules,
  nowMs: number,
): Omit<ForgetGroup, 'title'> {
  const sorted = [...group].sort(newestFirst);
  const present = sorted.filter((snapshot) => createdMs(snapshot) <= nowMs);
  const counts = countsOf(rules);
  const withinMs = rules.within && present[0] ? before(createdMs(present[0]), rules.within) : Infinity;
  const keep: KeptSnapshot[] = [];
  const remove: SnapshotSummary[] = [];
  let position = 0;
  for (const snapshot of sorted) {
    const ms = createdMs(snapshot);
    const reasons: string[] = [];
    for (const pattern of rules.tags ?? [])
      if (snapshot.tags.some((tag) => matchesGlob(pattern, tag))) reasons.push(`tag ${pattern}`);
    if (ms > nowMs) reasons.push('in the future');
    else {
      if (ms > withinMs) reasons.push(`within ${formatSpan(rules.within!)}`);
      const isOldest = snapshot === present.at(-1);
      for (const count of counts) {
        if (count.left === 0) continue;
        const period = count.periodOf(new Date(ms), position);
        const isSame = period === count.latest;
        // While a rule may keep more, it keeps the oldest snapshot too, so that history reaches back as far as it can.
        if (isSame && !isOldest) continue;
        reasons.push(isSame ? `oldest ${count.reason}` : count.reason);
        count.latest = period;
        count.left--;
      }
      position++;
    }
    if (reasons.length > 0) keep.push({ snapshot, reasons });
    else remove.push(snapshot);
  }
  return { keep, remove };
}

/** Errors: USAGE (there is no rule, or a count that is no number). */
export function requireRule(rules: KeepRules): void {
  for (const { reason, left } of countsOf(rules))
    if (!(Number.isSafeInteger(left) || left === Number.POSITIVE_INFINITY) || left < 0)
      throw new LivesnapError('USAGE', `the rule ${reason} has no number of snapshots, but ${left}`, {
        hint: 'Use a whole number of 0 or more, or Infinity for all.',
      });
  if (countsOf(rules).length > 0 || rules.within || (rules.tags ?? []).length > 0) return;
  throw new LivesnapError('USAGE', 'no rule says which snapshots to keep', {
    hint: 'Example: livesnap forget --keep-last 3 --keep-daily 7. To remove snapshots by name: livesnap rm.',
  });
}

/** The groups by title. Errors: USAGE (no rule, or a group of which nothing would be kept). */
export function planForget(
  snapshots: readonly SnapshotSummary[],
  rules: KeepRules,
  groupBy: readonly GroupKey[],
  nowMs: number,
): ForgetGroup[] {
  requireRule(rules);
  const groups = new Map<string, { title: string; group: SnapshotSummary[] }>();
  for (const snapshot of snapshots) {
    const key = JSON.stringify(valuesOf(snapshot, groupBy));
    const known = groups.get(key);
    if (known) known.group.push(snapshot);
    else groups.set(key, { title: titleOf(snapshot, groupBy), group: [snapshot] });
  }
  return [...groups.values()]
    .sort((a, b) => (a.title < b.title ? -1 : 1))
    .map(({ title, group }) => {
      const { keep, remove } = applyRules(group, rules, nowMs);
      if (keep.length === 0)
        throw new LivesnapError('USAGE', `no rule keeps any snapshot of the group "${title}"`, {
          hint: 'Add a rule such as --keep-last 1. To remove snapshots by name: livesnap rm.',
        });
      return { title, keep, remove };
    });
}
