/** Which snapshots of a list are shown, copied or considered, and in which order. Pure. */
import { LivesnapError } from '../errors.js';
import { matchesGlob } from '../glob.js';
import type { SnapshotKind, SnapshotSummary } from '../page-stream.js';
import {
  type FilterForms,
  hasLabel,
  type LabelFilter,
  parseFilterOf,
  parseLabelFilter,
  passesAll,
  patternForm,
} from './filters.js';

export type SnapshotFilter =
  | LabelFilter
  /** Patterns of the name of the machine or file, and of tags. */
  | { readonly key: 'name' | 'tag'; readonly pattern: string }
  | { readonly key: 'kind'; readonly kind: SnapshotKind }
  /** A tag, an ID or the beginning of an ID. The parent itself may be removed. */
  | { readonly key: 'parent'; readonly ref: string }
  | { readonly key: 'untagged' };

const KINDS: readonly string[] = ['machine', 'file', 'disk'] satisfies SnapshotKind[];

const FORMS: FilterForms<SnapshotFilter> = {
  label: { form: 'label=KEY or label=KEY=VALUE', parse: parseLabelFilter },
  name: patternForm('name'),
  tag: patternForm('tag'),
  kind: {
    form: 'kind=machine, kind=file or kind=disk',
    parse: (kind) => (KINDS.includes(kind ?? '') ? { key: 'kind', kind: kind as SnapshotKind } : null),
  },
  parent: { form: 'parent=SNAPSHOT', parse: (ref) => (ref === null ? null : { key: 'parent', ref }) },
  untagged: { form: 'untagged', parse: (value) => (value === null ? { key: 'untagged' } : null) },
};

/** Errors: USAGE. */
export const parseSnapshotFilter = (text: string): SnapshotFilter => parseFilterOf(FORMS, text);

export interface SnapshotChoice {
  readonly filters?: readonly SnapshotFilter[] | undefined;
  /** Only snapshots made at this time or later; in ms since 1970. */
  readonly sinceMs?: number | undefined;
  /** Only snapshots made before this time. */
  readonly untilMs?: number | undefined;
}

/** The snapshots of a store that pass, in the same order. Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS (a parent). */
export function chooseSnapshots(
  all: readonly SnapshotSummary[],
  { filters = [], sinceMs = -Infinity, untilMs = Infinity }: SnapshotChoice,
): SnapshotSummary[] {
  const parents = new Map(
    filters.flatMap((filter) => (filter.key === 'parent' ? [[filter.ref, parentOf(all, filter.ref)]] : [])),
  );
  const holds =
    ({ kind, vm, tags, labels, parent }: SnapshotSummary) =>
    (filter: SnapshotFilter): boolean => {
      switch (filter.key) {
        case 'label':
          return hasLabel(labels, filter);
        case 'name':
          return vm !== null && matchesGlob(filter.pattern, vm);
        case 'tag':
          return tags.some((tag) => matchesGlob(filter.pattern, tag));
        case 'kind':
          return kind === filter.kind;
        case 'parent':
          return parent === parents.get(filter.ref);
        case 'untagged':
          return tags.length === 0;
      }
    };
  return all.filter((snapshot) => {
    const ms = Date.parse(snapshot.createdAt);
    return ms >= sinceMs && ms < untilMs && passesAll(filters, holds(snapshot));
  });
}

/** The ID that `ref` names: of a snapshot, or of a parent that was removed. */
function parentOf(all: readonly SnapshotSummary[], ref: string): string {
  const tagged = all.find(({ tags }) => tags.includes(ref));
  if (tagged) return tagged.id;
  const known = new Set(all.flatMap(({ id, parent }) => (parent === null ? [id] : [id, parent])));
  const found = /^[0-9a-f]{1,32}$/.test(ref) ? [...known].filter((id) => id.startsWith(ref)) : [];
  if (found.length === 1) return found[0]!;
  if (found.length === 0)
    throw new LivesnapError('NO_SUCH_SNAPSHOT', `no snapshot or parent ${JSON.stringify(ref)}`, {
      hint: 'livesnap ls lists the snapshots.',
    });
  throw new LivesnapError('AMBIGUOUS', `ambiguous snapshot ID prefix ${JSON.stringify(ref)}`, {
    hint: `Give more digits: ${found.slice(0, 3).join(', ')}${found.length > 3 ? ' and others' : ''}.`,
  });
}

/** `created`: oldest first. `size` and `stored`: largest first. `name`: by name. */
export type SnapshotOrder = 'created' | 'size' | 'stored' | 'name';

const ascending = <T extends string | number>(a: T, b: T): number => (a < b ? -1 : a > b ? 1 : 0);
const sizeOf = ({ memoryBytes, diskBytes }: SnapshotSummary): number => memoryBytes + diskBytes;
const createdMs = ({ createdAt }: SnapshotSummary): number => Date.parse(createdAt);

const COMPARE: Record<SnapshotOrder, (a: SnapshotSummary, b: SnapshotSummary) => number> = {
  created: () => 0,
  size: (a, b) => sizeOf(b) - sizeOf(a),
  stored: (a, b) => b.storedBytes - a.storedBytes,
  name: (a, b) => ascending(a.vm ?? '', b.vm ?? ''),
};

/** Equal ones are sorted by time, then by ID. */
export function sortSnapshots(all: readonly SnapshotSummary[], order: SnapshotOrder): SnapshotSummary[] {
  const compare = COMPARE[order];
  return [...all].sort((a, b) => compare(a, b) || createdMs(a) - createdMs(b) || ascending(a.id, b.id));
}
