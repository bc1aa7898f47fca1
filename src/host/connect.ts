/** The entry of the library: `import { connect } from 'livesnap'`. */
import { resolve } from 'node:path';
import { defaultStore } from '../environment.js';
import { Host } from './host.js';

export interface ConnectOptions {
  /** Directory of the store. Default: LIVESNAP_STORE, else `livesnap` in the user's data directory. */
  readonly store?: string | undefined;
}

/** The machines and the store of this host. Nothing is started and no file is opened. Errors: USAGE (no store is known). */
export async function connect({ store }: ConnectOptions = {}): Promise<Host> {
  const named = store ?? (process.env.LIVESNAP_STORE || undefined);
  return new Host(named === undefined ? defaultStore() : resolve(named));
}
