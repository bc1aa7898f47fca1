import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { SnapshotSummary } from '../../../../src/page-stream.js';
import { parentsFirst } from '../../../../src/store/copy/parents-first.js';
import { summary } from '../../host/summaries.js';

const numbers = (all: readonly SnapshotSummary[]): number[] => all.map(({ id }) => Number.parseInt(id, 16));
const idOf = (n: number): string => n.toString(16).padStart(32, '0');

describe('the order of copies', () => {
  it('is oldest first, but a parent before its children', () => {
    const all = [
      summary(1, '2026-01-04', { parent: idOf(3) }),
      summary(2, '2026-01-02', { parent: idOf(9) }),
      summary(3, '2026-01-05', { parent: idOf(4) }),
      summary(4, '2026-01-06'),
      summary(5, '2026-01-01'),
    ];
    assert.deepEqual(numbers(parentsFirst(all)), [5, 2, 4, 3, 1]);
  });

  it('has each snapshot once, whatever parents it claims (properties)', () => {
    const link = fc.record({ n: fc.nat(30), parent: fc.nat(30), day: fc.nat(3) });
    fc.assert(
      fc.property(fc.uniqueArray(link, { selector: ({ n }) => n }), (links) => {
        const all = links.map(({ n, parent, day }) =>
          summary(n, new Date(2026, 0, 1 + day), { parent: idOf(parent) }),
        );
        const ordered = parentsFirst(all);
        assert.deepEqual(numbers(ordered).sort(), numbers(all).sort());
        const at = new Map(ordered.map(({ id }, i) => [id, i]));
        const byId = new Map(all.map((one) => [one.id, one]));
        for (const one of all) {
          const isInCircle = ((): boolean => {
            const seen = new Set<string>();
            for (let next: SnapshotSummary | undefined = one; next; next = byId.get(next.parent!)) {
              if (seen.has(next.id)) return true;
              seen.add(next.id);
            }
            return false;
          })();
          if (!isInCircle && at.has(one.parent!)) assert.ok(at.get(one.parent!)! < at.get(one.id)!);
        }
      }),
    );
  });

  it('takes a chain of 20,000 snapshots', () => {
    const chain = Array.from({ length: 20_000 }, (_, n) =>
      summary(n, new Date(-n), { parent: n === 0 ? null : idOf(n - 1) }),
    );
    assert.deepEqual(numbers(parentsFirst(chain)), [...chain.keys()]);
  });
});
