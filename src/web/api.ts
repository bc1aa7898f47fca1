/** Requests to the server, with the session of this tab. */
import { currentSession, endSession } from './session.js';
import { inStore } from './store-choice.js';

/** What the server refused, in its words (RFC 9457). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly hint: string | null,
  ) {
    super(detail);
  }
}

let onSignedOut = (): void => {};
/** Called when the session is not valid any more. */
export const whenSignedOut = (listener: () => void): void => {
  onSignedOut = listener;
};

/** Errors: ApiError; TypeError (no connection). */
export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const response = await fetch(inStore(path), {
    ...init,
    headers: { authorization: `Bearer ${currentSession() ?? ''}`, ...init.headers },
  });
  if (response.ok) return response;
  if (response.status === 401) {
    endSession();
    onSignedOut();
  }
  const problem = (await response.json().catch(() => null)) as {
    detail?: string;
    code?: string;
    hint?: string | null;
  } | null;
  throw new ApiError(
    response.status,
    problem?.code ?? 'SYSTEM',
    problem?.detail ?? `the server answered ${response.status}`,
    problem?.hint ?? null,
  );
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await (await request(path, signal === undefined ? {} : { signal })).json()) as T;
}

/** Sends a body as JSON. Resolves to null where there is no answer. */
export async function send<T>(
  method: 'POST' | 'PUT' | 'PATCH' | 'DELETE',
  path: string,
  body?: unknown,
): Promise<T> {
  const response = await request(path, {
    method,
    ...(body === undefined
      ? {}
      : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
  });
  return response.status === 204 ? (null as T) : ((await response.json()) as T);
}
