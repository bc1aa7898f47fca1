/** The entry of the library: `import { connect } from 'livesnap'`. */
import { resolve } from 'node:path';
import { chosenStore } from '../chosen-store.js';
import { requireLocal } from '../store/remote/address.js';
import { requireOptions, requireText } from './arguments.js';
import { Host } from './host.js';

export interface ConnectOptions {
  /**
   * Directory of the store. Default: LIVESNAP_STORE, else `store` in the user's config file, else `livesnap` in the user's
   * data directory.
   */
  readonly store?: string | undefined;
}

/**
 * The machines and the store of this host. Nothing is started, and at most the config file is read, of which only `store`
 * counts here. Errors: USAGE (no store is known; an address; a wrong argument; the config file is wrong), NO_PERMISSION,
 * SYSTEM.
 */
export async function connect(options: ConnectOptions = {}): Promise<Host> {
  requireOptions(options, 'connect', "connect({ store: '/srv/livesnap' })");
  const { store } = options;
  if (store !== undefined) requireText(store, 'store', 'Give store: the path of a directory.');
  return new Host(resolve(requireLocal(chosenStore(store).dir)));
}
