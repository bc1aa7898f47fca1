/** Finds a machine that runs, by its name or ID. */
import { runRoot } from '../environment.js';
import { findMachine as findByName } from '../machine/client.js';
import { RunDirectory } from '../machine/run-directory.js';
import type { CallOptions } from './call-options.js';
import { Machine } from './machine.js';
import { machineInfos, machineNamed } from './machine-info.js';

/** `nameOrId`: a name, an ID or a unique prefix of that. Errors: NO_SUCH_MACHINE, MACHINE_GONE, AMBIGUOUS. */
export async function findMachine(nameOrId: string, { signal }: CallOptions = {}): Promise<Machine> {
  signal?.throwIfAborted();
  const client = await findByName(await nameOf(nameOrId));
  return new Machine(client.directory, await client.describe(), null);
}

async function nameOf(nameOrId: string): Promise<string> {
  if ((await new RunDirectory(runRoot(), nameOrId).look()) !== 'absent') return nameOrId;
  return machineNamed(await machineInfos(), nameOrId)?.name ?? nameOrId;
}
