/** The order in which several snapshots are copied. Pure. */
import type { SnapshotSummary } from '../types.js';

/**
 * Oldest first, but each snapshot after its parent, so that a child sends only what differs. Times and parents may be
 * wrong: a circle of parents is cut anywhere.
 */
export function parentsFirst(snapshots: readonly SnapshotSummary[]): SnapshotSummary[] {
  const byId = new Map(snapshots.map((snapshot) => [snapshot.id, snapshot]));
  const createdMs = new Map(snapshots.map(({ id, createdAt }) => [id, Date.parse(createdAt)]));
  const sorted = [...snapshots].sort(
    (a, b) => createdMs.get(a.id)! - createdMs.get(b.id)! || (a.id < b.id ? -1 : 1),
  );
  const ordered = new Set<SnapshotSummary>();
  for (const snapshot of sorted) {
    const chain = new Set<SnapshotSummary>();
    for (let one: SnapshotSummary | undefined = snapshot; one && !ordered.has(one) && !chain.has(one); ) {
      chain.add(one);
      one = one.parent === null ? undefined : byId.get(one.parent);
    }
    for (const one of [...chain].reverse()) ordered.add(one);
  }
  return [...ordered];
}
