/** Removes the snapshots that a policy does not keep (forget-policy.ts). */
import type { Store } from '../store/store.js';
import { type ForgetGroup, type GroupKey, type KeepRules, planForget } from './forget-policy.js';
import { chooseSnapshots, type SnapshotChoice } from './snapshot-filter.js';

export interface ForgetOptions extends SnapshotChoice {
  /** Tags, patterns of tags, IDs or prefixes of IDs: no others are considered. None: all are. */
  readonly refs?: readonly string[];
  readonly rules: KeepRules;
  readonly groupBy: readonly GroupKey[];
  readonly dryRun: boolean;
}

/**
 * Removes all that the policy does not keep, or nothing if it fails. The policy is applied within the transaction that
 * removes, so a tag that another process has set by then counts. Returns what was kept and removed, by group. Errors:
 * USAGE, NO_SUCH_SNAPSHOT, NO_SUCH_TAG, AMBIGUOUS, READ_ONLY.
 */
export function forgetSnapshots(
  store: Store,
  { refs = [], rules, groupBy, dryRun, ...choice }: ForgetOptions,
): ForgetGroup[] {
  let groups: ForgetGroup[] = [];
  store.removeChosen(
    (all) => {
      const named = refs.length === 0 ? null : new Set(store.resolveAll(refs));
      const considered = chooseSnapshots(all, choice).filter(({ id }) => named?.has(id) ?? true);
      groups = planForget(considered, rules, groupBy, Date.now());
      return groups.flatMap(({ remove }) => remove.map(({ id }) => id));
    },
    { dryRun },
  );
  return groups;
}
