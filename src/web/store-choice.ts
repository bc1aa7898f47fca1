/**
 * Which store of the server this tab shows, if the server has several. The choice is kept for this tab alone.
 *
 * Invariant: where there are several stores, requests name the one that is shown, so that nothing happens to another.
 */
const KEY = 'livesnap-store';
/** What is done with a store, and what saves or starts a machine. */
const USES_STORE =
  /^\/v1\/((snapshots|tags|store|overview|events)(?=[/?]|$)|machines\/[^/?]+\/(save|fork)(?=[?]|$))/;

let shown: string | null = sessionStorage.getItem(KEY);

/** The server shows this store. `isOnly`: it has no other. */
export function showsStore(name: string, isOnly: boolean): void {
  shown = isOnly ? null : name;
}

/** Shows another store from now on; null: the default one. */
export function chooseStore(name: string | null): void {
  if (name === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, name);
  shown = name;
}

export const hasChosenStore = (): boolean => shown !== null;

/** The path of a request to the store that is shown. */
export function inStore(path: string): string {
  if (shown === null || !USES_STORE.test(path)) return path;
  return `${path}${path.includes('?') ? '&' : '?'}store=${encodeURIComponent(shown)}`;
}
