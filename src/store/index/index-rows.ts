/**
 * The values that a row of the index may hold (docs/format.md, "Index").
 *
 * Invariant: no value of a row is used, least of all in a path, before it was checked here. SQLite checks types,
 * constraints and references when it writes, not when it reads, and a store may come from anywhere.
 */
import { labels } from '../../labels.js';
import {
  amount,
  type Check,
  integer,
  nullable,
  oneOf,
  passes,
  SchemaError,
  satisfying,
  text,
} from '../../schema.js';
import { DamageError } from '../disk/damage.js';
import { DATABASE, MAX_GENERATION, MAX_NUMBER, SNAPSHOT_ID, TAG_LABEL } from '../disk/layout.js';
import { MAX_PACK_BYTES, PACK_CHUNKS } from '../pack/pack-format.js';
import { time } from '../snapshot/description.js';

const number = integer(1, MAX_NUMBER);
const id = text(SNAPSHOT_ID, 'a snapshot ID');
const label = text(TAG_LABEL, 'a tag');
const sizeBytes = integer();

/** Most rows have the same labels as the row before. */
let lastLabels = '{}';

function isLabels(json: string): boolean {
  if (json === lastLabels) return true;
  try {
    if (!passes(labels, JSON.parse(json))) return false;
  } catch {
    return false;
  }
  lastLabels = json;
  return true;
}

/** By table and column; `tag` and `snapshotExists` come from queries over two tables. */
const TABLES = {
  snapshots: {
    id,
    tag: nullable(label),
    kind: oneOf('machine', 'file', 'disk'),
    vm: nullable(text()),
    parent: nullable(id),
    createdAt: time,
    memoryBytes: sizeBytes,
    diskBytes: sizeBytes,
    storedBytes: sizeBytes,
    logicalBytes: sizeBytes,
    nonZeroPages: integer(),
    labels: nullable(satisfying(text(), isLabels, 'is not an object of labels')),
    pauseMs: nullable(amount),
  },
  tags: { label, snapshot: id, snapshotExists: integer(1, 1) },
  packs: {
    number,
    generation: integer(0, MAX_GENERATION),
    chunks: integer(1, PACK_CHUNKS),
    sizeBytes: integer(1, MAX_PACK_BYTES),
    readRun: integer(0, MAX_NUMBER),
    verifiedAt: nullable(time),
  },
  segments: { number, entries: integer(1, MAX_NUMBER) },
  counters: { value: number },
} as const satisfies Record<string, Record<string, Check<unknown>>>;

export type Table = keyof typeof TABLES;

/** As lists: rows are checked by the thousand. */
const COLUMNS = Object.fromEntries(
  Object.entries(TABLES).map(([table, columns]) => [table, Object.entries(columns)]),
) as Record<Table, [column: string, check: Check<unknown>][]>;

/** The problem of a row, which may have only some of the table's columns; null: it has none. */
export function invalidRow(table: Table, row: object): DamageError | null {
  const values = row as Record<string, unknown>;
  try {
    for (const [column, check] of COLUMNS[table]) {
      const value = values[column];
      if (value !== undefined) check(value, column);
    }
    return null;
  } catch (error) {
    if (!(error instanceof SchemaError)) throw error;
    return invalid(table, values, error);
  }
}

function invalid(
  table: Table,
  row: Record<string, unknown>,
  { path: column, problem }: SchemaError,
): DamageError {
  const rowOf = (name: Table, why: string): DamageError => damagedTable(name, `has an invalid row: ${why}`);
  if (column === 'snapshotExists')
    return rowOf(table, `the snapshot of the tag ${shown(row.label)} does not exist`);
  if (column === 'tag') return rowOf('tags', `label ${shown(row.tag)} ${problem}`);
  return rowOf(table, `${column} ${shown(row[column])} ${problem}`);
}

export const damagedTable = (table: Table, problem: string): DamageError =>
  new DamageError(DATABASE, null, `the table ${table} ${problem}`);

/** As much of an invalid value as an error repeats. */
const SHOWN_LENGTH = 60;

function shown(value: unknown): string {
  const whole = JSON.stringify(value) ?? String(value);
  return whole.length > SHOWN_LENGTH ? `${whole.slice(0, SHOWN_LENGTH)}…` : whole;
}
