/** What was saved, and what is left of it at each step: zero pages, equal pages, compression, files. */
import { formatBytes } from '../../format.js';
import type { Overview } from '../state/types.js';

type Store = NonNullable<Overview['store']>;

export function StoreFunnel({ store }: { store: Store }) {
  const { logicalBytes, nonZeroBytes, uniqueBytes, storedBytes, indexBytes, deadBytes } = store;
  const steps: readonly [label: string, bytes: number, kind: string][] = [
    ['saved', logicalBytes, 'saved'],
    ['not zero', nonZeroBytes, 'filled'],
    ['unique', uniqueBytes, ''],
    ['compressed', Math.max(0, storedBytes - deadBytes), ''],
    ['on disk', storedBytes + indexBytes, ''],
  ];
  return (
    <dl class="funnel">
      {steps.map(([label, bytes, kind]) => (
        <>
          <dt class="quiet">{label}</dt>
          <dd class="num">{formatBytes(bytes)}</dd>
          <dd class={`bar ${kind}`} aria-hidden="true">
            <span
              style={{ width: `${Math.min(100, (100 * bytes) / Math.max(1, logicalBytes)).toFixed(2)}%` }}
            />
          </dd>
        </>
      ))}
    </dl>
  );
}
