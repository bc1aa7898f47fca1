/**
 * The session of this tab. `livesnap open` gives a code in the fragment of the address, which is traded for a session at
 * once and taken out of the address. The session is kept for this tab alone.
 */
const KEY = 'livesnap-session';
const CODE = /^#code=([\w.-]{1,256})$/;

export const currentSession = (): string | null => sessionStorage.getItem(KEY);
export const endSession = (): void => sessionStorage.removeItem(KEY);

/** Resolves to whether there is a session now. */
export async function signIn(): Promise<boolean> {
  const [, code] = CODE.exec(location.hash) ?? [];
  if (code === undefined) return currentSession() !== null;
  history.replaceState(null, '', '/');
  const response = await fetch('/v1/sessions', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ code }),
  });
  if (response.ok) sessionStorage.setItem(KEY, ((await response.json()) as { secret: string }).secret);
  return response.ok || currentSession() !== null;
}
