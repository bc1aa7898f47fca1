/**
 * The description of a snapshot: the JSON part of its file (docs/format.md, "Snapshots").
 *
 * Invariants:
 * - A description is checked before any of it is used, because another program may have written it with a matching
 *   digest.
 * - Unknown fields are ignored. `machine` and `host` may be any JSON that is not nested too deeply.
 */
import { LivesnapError } from '../../errors.js';
import { type Labels, labels } from '../../labels.js';
import { PAGE_BYTES, type Region } from '../../page-stream.js';
import {
  amount,
  anything,
  type Check,
  integer,
  isRecord,
  list,
  nullable,
  object,
  oneOf,
  parse,
  passes,
  satisfying,
  text,
} from '../../schema.js';
import { DamageError } from '../disk/damage.js';
import { SNAPSHOT_ID } from '../disk/layout.js';
import type { SnapshotKind } from '../types.js';

/** Where the description begins in the file. */
export const DESCRIPTION_OFFSET = 32;
export const MAX_DESCRIPTION_BYTES = 1 << 20;
/** Depth of arrays and objects, including the description itself: code that prints it may recurse. */
const MAX_NESTING = 64;
const MAX_REGIONS = 256;
/** Page numbers are 32 bits. */
export const MAX_REGION_BYTES = 2 ** 32 * PAGE_BYTES;
/** No store is larger. The size of a file can be added and the sum is still a safe integer. */
export const MAX_PACK_TOTAL = 2 ** 52;
const MAX_TIME_LENGTH = 64;

export interface DescribedRegion extends Region {
  readonly nonZeroPages: number;
}

export interface SnapshotDescription {
  readonly id: string;
  readonly kind: SnapshotKind;
  readonly vm: string | null;
  readonly parent: string | null;
  readonly createdAt: string;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  /** The bytes that the save added to packs. */
  readonly packBytes: number;
  readonly regions: readonly DescribedRegion[];
  readonly machine: unknown;
  readonly host: unknown;
}

export const pagesOf = (sizeBytes: number): number => Math.ceil(sizeBytes / PAGE_BYTES);

/** A date and time as text, such as ISO 8601. */
export const time: Check<string> = satisfying(
  text(),
  (value) => value.length <= MAX_TIME_LENGTH && !Number.isNaN(Date.parse(value)),
  'is not a date and time',
);

export const regionName: Check<string> = text(/^[a-z0-9@._-]{1,64}$/, 'a region name');

const regionFields = {
  name: regionName,
  sizeBytes: integer(0, MAX_REGION_BYTES),
};

const listOfRegions = <R extends Region>(region: Check<R>): Check<readonly R[]> =>
  satisfying(
    list(region, 0, MAX_REGIONS),
    (regions) => new Set(regions.map(({ name }) => name)).size === regions.length,
    'has two regions with the same name',
  );

const regionList: Check<readonly Region[]> = listOfRegions(object(regionFields, { others: 'ignore' }));

const describedRegions: Check<readonly DescribedRegion[]> = listOfRegions(
  satisfying(
    object({ ...regionFields, nonZeroPages: integer() }, { others: 'ignore' }),
    ({ nonZeroPages, sizeBytes }) => nonZeroPages <= pagesOf(sizeBytes),
    'counts more pages than it has',
  ),
);

const descriptionFields: Check<SnapshotDescription> = object(
  {
    id: text(SNAPSHOT_ID, 'a snapshot ID'),
    kind: oneOf('machine', 'file', 'disk'),
    vm: nullable(text()),
    parent: nullable(text(SNAPSHOT_ID, 'a snapshot ID')),
    createdAt: time,
    memoryBytes: integer(),
    diskBytes: integer(),
    packBytes: integer(0, MAX_PACK_TOTAL),
    regions: describedRegions,
    machine: anything,
    host: anything,
  },
  { others: 'ignore' },
);

/** Whether these are regions that a snapshot may have. */
export const areRegions = (regions: unknown): regions is Region[] => passes(regionList, regions);

/** The labels of a machine, by sorted keys. None if `machine` has no valid labels. */
export function labelsOf({ machine }: Pick<SnapshotDescription, 'machine'>): Labels {
  const found = isRecord(machine) ? machine.labels : undefined;
  if (!passes(labels, found)) return {};
  return Object.fromEntries(Object.entries(found as Labels).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** How long the save paused the machine. Null: it did not run, or `machine` has no valid `pauseMs`. */
export function pauseOf({ machine }: Pick<SnapshotDescription, 'machine'>): number | null {
  const found = isRecord(machine) ? machine.pauseMs : undefined;
  return passes(amount, found) ? (found as number) : null;
}

/** The index of the region with this name. Errors: NO_SUCH_REGION. */
export function findRegion(
  { id, regions }: { readonly id: string; readonly regions: readonly Region[] },
  name: string,
): number {
  const found = regions.findIndex((region) => region.name === name);
  if (found < 0)
    throw new LivesnapError('NO_SUCH_REGION', `snapshot ${id} has no region ${JSON.stringify(name)}`, {
      hint: `It has: ${regions.map((region) => region.name).join(', ') || 'none'}.`,
    });
  return found;
}

/** Parses the JSON of a file. Errors: DAMAGED. */
export function parseDescription(file: string, json: Buffer, id: string): SnapshotDescription {
  let value: unknown;
  try {
    value = JSON.parse(json.toString('utf8'));
  } catch {
    throw new DamageError(file, DESCRIPTION_OFFSET, 'the description is not JSON');
  }
  return requireDescription(file, value, id);
}

/** Checks parsed JSON. Errors: DAMAGED. */
export function requireDescription(file: string, value: unknown, id: string): SnapshotDescription {
  const damage = (why: string): DamageError => new DamageError(file, DESCRIPTION_OFFSET, why);
  if (!isShallow(value)) throw damage('the description is nested too deeply');
  const description = parse(descriptionFields, value, ({ path, problem }) =>
    damage(
      path === ''
        ? `the description ${problem}`
        : `the description has no valid field ${JSON.stringify(path)}`,
    ),
  );
  if (description.id !== id) throw damage('the description is of another snapshot');
  return description;
}

/** Goes level by level, without recursion: JSON.parse accepts any depth. */
function isShallow(value: unknown): boolean {
  let level = [value];
  for (let depth = 0; depth <= MAX_NESTING; depth++) {
    const nested = level.filter((part) => typeof part === 'object' && part !== null) as object[];
    if (nested.length === 0) return true;
    level = nested.flatMap((part) => Object.values(part));
  }
  return false;
}

/** Whether a description is small enough to be written, and then read. */
export const isDescribable = (description: SnapshotDescription): boolean =>
  isShallow(description) && Buffer.byteLength(JSON.stringify(description)) <= MAX_DESCRIPTION_BYTES;
