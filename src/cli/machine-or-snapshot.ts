/** What a word names that may be a machine or a snapshot. */
import { asLivesnapError, LivesnapError } from '../errors.js';
import type { Host } from '../host/host.js';
import { parseWord } from './values.js';
import { valued } from './verb.js';

export type Kind = 'machine' | 'snapshot';

export const typeOption = (help: string) =>
  valued('--type <machine|snapshot>', help, parseWord('machine', 'snapshot'));

/**
 * A machine in any state counts, by its name or its ID. A snapshot counts by its tag or ID, and by the beginning of its
 * ID where there is no machine. Errors: AMBIGUOUS (both), NO_SUCH_SNAPSHOT (neither), those of the store.
 */
export async function kindOf(host: Host, ref: string, type: Kind | undefined): Promise<Kind> {
  if (type !== undefined) return type;
  const { findRunDirectory } = await import('../host/find-machine.js');
  const isMachine = (await findRunDirectory(ref)) !== null;
  const snapshot = await snapshotOf(host, ref);
  if (isMachine && snapshot !== null && (snapshot.id === ref || snapshot.tags.includes(ref)))
    throw new LivesnapError('AMBIGUOUS', `${ref} is a machine and a snapshot`, {
      hint: 'Add --type machine or --type snapshot.',
    });
  if (isMachine) return 'machine';
  if (snapshot !== null) return 'snapshot';
  throw new LivesnapError('NO_SUCH_SNAPSHOT', `there is no machine and no snapshot named ${ref}`, {
    hint: 'livesnap ps lists the machines, and livesnap ls the snapshots.',
  });
}

/** Null: the store has no such snapshot, or there is no store. */
async function snapshotOf(
  host: Host,
  ref: string,
): Promise<{ readonly id: string; readonly tags: readonly string[] } | null> {
  const { locateSnapshot } = await import('../host/locate-snapshot.js');
  const { StoreVerbs } = await import('../host/store-verbs.js');
  try {
    const { dir, ref: found } = await locateSnapshot(host.storeDir, ref);
    return await new StoreVerbs(dir).find(found);
  } catch (error) {
    const { code } = asLivesnapError(error);
    if (code === 'NO_SUCH_SNAPSHOT' || code === 'NO_SUCH_FILE') return null;
    throw error;
  }
}
