/** The answer of the probe guest's `locks`, and of the Linux guest's. */
import assert from 'node:assert/strict';

export interface LockCounts {
  readonly locked: bigint;
  readonly added: bigint;
}

/** Asserts that the vCPUs agree: the shared counts are the sums of their own ones, and no TSC went back. */
export function lockCounts(line: string): LockCounts {
  const match = /^LOCKS locked=(\d+)\/(\d+) added=(\d+)\/(\d+) warps=(\d+)$/.exec(line);
  assert(match, line);
  const [locked, lockedSum, added, addedSum, warps] = match.slice(1).map(BigInt);
  assert.equal(locked, lockedSum, line);
  assert.equal(added, addedSum, line);
  assert.equal(warps, 0n, line);
  return { locked: locked!, added: added! };
}
