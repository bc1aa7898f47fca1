/** Finds machines by their names or IDs. */
import { runRoot } from '../environment.js';
import { LivesnapError } from '../errors.js';
import { findMachine as findByName } from '../machine/client.js';
import { isMachineName, listRunDirectories, RunDirectory } from '../machine/run-directory.js';
import { requireText } from './arguments.js';
import type { CallOptions } from './call-options.js';
import { Machine } from './machine.js';

/** The beginning of an ID that counts as one. Shorter words are names. */
const ID_PREFIX = /^[0-9a-f]{6,32}$/;

/**
 * The machine that runs with this name, ID or unique prefix of an ID. Errors: USAGE, NO_SUCH_MACHINE, MACHINE_GONE,
 * AMBIGUOUS.
 */
export async function findMachine(nameOrId: string, { signal }: CallOptions = {}): Promise<Machine> {
  signal?.throwIfAborted();
  requireText(
    nameOrId,
    'the machine',
    'Give the name or the ID of a machine. livesnap ps lists the machines.',
  );
  const client = await findByName((await findRunDirectory(nameOrId))?.name ?? nameOrId);
  return new Machine(client.directory, await client.describe(), null);
}

/**
 * The directory of a machine in any state: of the one with this name, else of the one with this ID or unique prefix of an
 * ID. Only records are read, no machine is asked. Null: there is none. Errors: AMBIGUOUS.
 */
export async function findRunDirectory(nameOrId: string): Promise<RunDirectory | null> {
  if (isMachineName(nameOrId)) {
    const named = new RunDirectory(runRoot(), nameOrId);
    if ((await named.look()) !== 'absent') return named;
  }
  if (!ID_PREFIX.test(nameOrId)) return null;
  const directories = await listRunDirectories(runRoot());
  const ids = await Promise.all(directories.map(async (each) => (await each.readRecord())?.id));
  const found = directories.filter((_, i) => ids[i]?.startsWith(nameOrId));
  if (found.length > 1)
    throw new LivesnapError('AMBIGUOUS', `ambiguous machine ID prefix ${nameOrId}`, {
      hint: `Give more digits, or a name: ${found.map(({ name }) => name).join(', ')}.`,
    });
  return found[0] ?? null;
}
