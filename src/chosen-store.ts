/**
 * Which store a call uses: the one that the caller names, else that of LIVESNAP_STORE, else that of the config file,
 * else the default one.
 */
import { readConfig } from './config.js';
import { defaultStore } from './environment.js';

export interface ChosenStore {
  /** It may be relative to the working directory if the caller or the environment names it. */
  readonly dir: string;
  readonly from: 'caller' | 'environment' | 'config' | 'default';
}

/** Null: neither the caller nor the environment names a store. */
export function namedStore(given: string | undefined): ChosenStore | null {
  if (given !== undefined) return { dir: given, from: 'caller' };
  const { LIVESNAP_STORE } = process.env;
  return LIVESNAP_STORE ? { dir: LIVESNAP_STORE, from: 'environment' } : null;
}

/** Errors: USAGE (the config file is wrong; the home directory is unknown), NO_PERMISSION, SYSTEM. */
export function chosenStore(given: string | undefined): ChosenStore {
  const named = namedStore(given);
  if (named !== null) return named;
  const { store } = readConfig();
  return store === undefined ? { dir: defaultStore(), from: 'default' } : { dir: store, from: 'config' };
}
