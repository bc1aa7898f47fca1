/**
 * The snapshots of a store as rows of a tree. Pure.
 *
 * A snapshot is below its parent. A chain stays at one depth, so that a hundred incremental saves are a list. At a branch
 * the child with the most snapshots below it continues the chain. Runs of untagged snapshots in a chain are one row, until they are unfolded.
 */
import type { Machine, Snapshot } from './types.js';

/** Shorter runs are shown. */
const MIN_FOLDED = 3;

export type TreeRow =
  | {
      readonly kind: 'snapshot';
      readonly key: string;
      readonly snapshot: Snapshot;
      /** The lines before it, such as `│ ├ `. */
      readonly lines: string;
      /** The name of the machine or file. Null: as in the row before. */
      readonly title: string | null;
      /** Machines whose last snapshot it is. */
      readonly machines: readonly Machine[];
    }
  | {
      readonly kind: 'folded';
      readonly key: string;
      readonly snapshots: readonly Snapshot[];
      readonly lines: string;
      readonly isOpen: boolean;
    };

export interface TreeOptions {
  /** Only snapshots whose name, tags, ID or kind have this text, as a flat list. Empty: all. */
  readonly filter: string;
  /** The keys of runs that are unfolded. */
  readonly unfolded: ReadonlySet<string>;
}

const matches = (snapshot: Snapshot, words: readonly string[]): boolean => {
  const text = [snapshot.vm ?? '', snapshot.kind, snapshot.id, ...snapshot.tags].join(' ').toLowerCase();
  return words.every((word) => text.includes(word));
};

export function treeRows(
  snapshots: readonly Snapshot[],
  machines: readonly Machine[],
  { filter, unfolded }: TreeOptions,
): TreeRow[] {
  const users = groupBy(
    machines.filter(({ snapshot }) => snapshot !== null),
    ({ snapshot }) => snapshot!,
  );
  const words = filter
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== '');
  if (words.length > 0)
    return snapshots
      .filter((snapshot) => matches(snapshot, words))
      .reverse()
      .map((snapshot) => ({
        ...{ kind: 'snapshot', key: snapshot.id, snapshot, lines: '', title: snapshot.vm },
        machines: users.get(snapshot.id) ?? [],
      }));

  const known = new Set(snapshots.map(({ id }) => id));
  const children = groupBy(snapshots, ({ parent }) => (parent !== null && known.has(parent) ? parent : ''));
  const sizes = subtreeSizes(snapshots);
  const sizeOf = ({ id }: Snapshot): number => sizes.get(id) ?? 1;
  const rows: TreeRow[] = [];
  const written = new Set<string>();
  for (const root of children.get('') ?? []) writeChain(root, '', true);
  // Parents in a circle, as only a forged store has them, have no root.
  for (const snapshot of snapshots) if (!written.has(snapshot.id)) writeChain(snapshot, '', true);
  return rows;

  /** Writes a snapshot and those below it. */
  function writeChain(first: Snapshot, above: string, isRoot: boolean): void {
    const chain: Snapshot[] = [];
    const branches = new Map<string, readonly Snapshot[]>();
    for (let next: Snapshot | undefined = first; next !== undefined; ) {
      chain.push(next);
      written.add(next.id);
      const below: readonly Snapshot[] = (children.get(next.id) ?? []).filter(({ id }) => !written.has(id));
      const [oldest, ...rest] = below;
      let main = oldest;
      for (const child of rest) if (sizeOf(child) >= sizeOf(main!)) main = child;
      if (rest.length > 0)
        branches.set(
          next.id,
          below.filter((child) => child !== main),
        );
      next = main;
    }
    const pieces = piecesOf(chain, branches);
    for (const [i, piece] of pieces.entries()) {
      const isFirst = isRoot && i === 0;
      const isLast = i === pieces.length - 1;
      const line = isFirst ? (isLast ? '─ ' : '┬ ') : isLast ? '└ ' : '├ ';
      if (piece.length === 1) rows.push(rowOf(piece[0]!, above + line, isFirst));
      else {
        const key = `run-${piece[0]!.id}`;
        const isOpen = unfolded.has(key);
        rows.push({ kind: 'folded', key, snapshots: piece, lines: above + line, isOpen });
        if (isOpen)
          for (const each of piece) rows.push(rowOf(each, `${above}${isLast ? '  ' : '│ '}· `, false));
      }
      for (const child of branches.get(piece.at(-1)!.id) ?? []) writeChain(child, `${above}│ `, false);
    }
  }

  function rowOf(snapshot: Snapshot, lines: string, isFirst: boolean): TreeRow {
    return {
      ...{
        kind: 'snapshot',
        key: snapshot.id,
        snapshot,
        lines,
        title: isFirst ? (snapshot.vm ?? '-') : null,
      },
      machines: users.get(snapshot.id) ?? [],
    };
  }

  /** Cuts a chain into single snapshots and runs that can be folded. */
  function piecesOf(chain: readonly Snapshot[], branches: ReadonlyMap<string, unknown>): Snapshot[][] {
    const pieces: Snapshot[][] = [];
    let run: Snapshot[] = [];
    const close = (): void => {
      if (run.length >= MIN_FOLDED) pieces.push(run);
      else pieces.push(...run.map((each) => [each]));
      run = [];
    };
    for (const [i, snapshot] of chain.entries()) {
      const isPlain = snapshot.tags.length === 0 && !users.has(snapshot.id) && i > 0;
      if (isPlain) run.push(snapshot);
      if (!isPlain || branches.has(snapshot.id)) close();
      if (!isPlain) pieces.push([snapshot]);
    }
    close();
    return pieces;
  }
}

/** How many snapshots each tree has, with its root. Children come after their parents, so their order is reversed. */
function subtreeSizes(snapshots: readonly Snapshot[]): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const { id, parent } of snapshots.toReversed()) {
    const size = (sizes.get(id) ?? 0) + 1;
    sizes.set(id, size);
    if (parent !== null) sizes.set(parent, (sizes.get(parent) ?? 0) + size);
  }
  return sizes;
}

function groupBy<T>(all: readonly T[], keyOf: (one: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const one of all) {
    const key = keyOf(one);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [one]);
    else group.push(one);
  }
  return groups;
}
