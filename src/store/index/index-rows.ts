/**
 * What a row of the index may hold (docs/format.md, "Index").
 *
 * Invariant: no value of a row is used, least of all as a part of a path, before it was looked at here. SQLite looks at
 * types, checks and references when it writes, not when it reads, and a store may come from anywhere.
 */
import { DamageError } from '../disk/damage.js';
import { DATABASE, MAX_GENERATION, MAX_NUMBER, SNAPSHOT_ID, TAG_LABEL } from '../disk/layout.js';
import { MAX_PACK_BYTES, PACK_CHUNKS } from '../pack/pack-format.js';
import { isSize, isTime } from '../snapshot/snapshot-file.js';

type Rule = (value: unknown) => boolean;

const integer =
  (least: number, most: number): Rule =>
  (value) =>
    Number.isInteger(value) && (value as number) >= least && (value as number) <= most;
const text =
  (pattern: RegExp): Rule =>
  (value) =>
    typeof value === 'string' && pattern.test(value);
const orNull =
  (rule: Rule): Rule =>
  (value) =>
    value === null || rule(value);

const number = integer(1, MAX_NUMBER);
const id = text(SNAPSHOT_ID);
const label = text(TAG_LABEL);

/** By table and column; `tag` and `isThere` are of queries over two tables. */
const RULES = {
  snapshots: {
    id,
    tag: orNull(label),
    kind: text(/^(machine|file)$/),
    vm: orNull((value) => typeof value === 'string'),
    parent: orNull(id),
    createdAt: isTime,
    memoryBytes: isSize,
    diskBytes: isSize,
    storedBytes: isSize,
    logicalBytes: isSize,
    nonZeroPages: isSize,
  },
  tags: { label, snapshot: id, isThere: integer(1, 1) },
  packs: {
    number,
    generation: integer(0, MAX_GENERATION),
    chunks: integer(1, PACK_CHUNKS),
    sizeBytes: integer(1, MAX_PACK_BYTES),
    readRun: integer(0, MAX_NUMBER),
  },
  segments: { number, entries: integer(1, MAX_NUMBER) },
  counters: { value: number },
} as const satisfies Record<string, Record<string, Rule>>;

export type Table = keyof typeof RULES;

const RULE_LISTS = Object.fromEntries(
  Object.entries(RULES).map(([table, rules]) => [table, Object.entries(rules)]),
) as Record<Table, [column: string, rule: Rule][]>;

/** As much of a wrong value as is told. */
const SHOWN_LENGTH = 60;

function shown(value: unknown): string {
  const whole = JSON.stringify(value) ?? String(value);
  return whole.length > SHOWN_LENGTH ? `${whole.slice(0, SHOWN_LENGTH)}…` : whole;
}

/** What is wrong with a row, of which a query may give some columns only; null: nothing. */
export function wrongRow(table: Table, row: object): DamageError | null {
  const values = row as Record<string, unknown>;
  for (const [column, isRight] of RULE_LISTS[table]) {
    const value = values[column];
    if (value === undefined || isRight(value)) continue;
    if (column === 'isThere')
      return damaged(table, `the tag ${shown(values.label)} names a snapshot that is not there`);
    if (column === 'tag') return damaged('tags', `the label ${shown(value)} cannot be`);
    return damaged(table, `the ${column} ${shown(value)} cannot be`);
  }
  return null;
}

export const damaged = (table: Table, why: string): DamageError =>
  new DamageError(DATABASE, null, `the table ${table} has a row that livesnap did not write: ${why}`);
