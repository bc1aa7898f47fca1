/**
 * Requests of the control API, checked and parsed.
 *
 * Invariants:
 * - The size of a body is limited, and a body is checked before it is used.
 * - Over TCP, Host must be the loopback address, and Origin, if there is one, the same. So no web page from elsewhere can
 *   control a machine (DNS rebinding, cross-site requests).
 * - Over TCP, a save cannot choose its store.
 */
import type { IncomingMessage } from 'node:http';
import { isAbsolute } from 'node:path';
import { labels } from '../labels.js';
import {
  type Check,
  flag,
  integer,
  list,
  nullable,
  object,
  oneOf,
  optional,
  parse,
  satisfying,
  text,
} from '../schema.js';
import { bearerOf, isSameSecret } from '../secret.js';
import { HISTORY_BYTES, RING_BYTES } from './console-hub.js';
import {
  MAX_STOP_TIMEOUT_MS,
  type MachineChange,
  type SaveRequest,
  STOP_TIMEOUT_MS,
  type StopRequest,
} from './control-api.js';
import { HttpError } from './http-status.js';
import { MAX_LIFETIME_MS } from './lifetime.js';
import { loopbackOrigins, wrongOrigin } from './origin.js';

const MAX_BODY_BYTES = 64 * 1024;

/** The body as it arrives. Leaving the loop early keeps the connection open for the answer. */
export const bodyParts = (request: IncomingMessage): AsyncIterable<Buffer> =>
  request.iterator({ destroyOnReturn: false });

/** The body as JSON; an empty one is `{}`. Errors: HttpError 400, 413. */
async function readJson(request: IncomingMessage, hint: string): Promise<unknown> {
  const parts: Buffer[] = [];
  let sizeBytes = 0;
  for await (const part of bodyParts(request)) {
    sizeBytes += part.length;
    if (sizeBytes > MAX_BODY_BYTES)
      throw new HttpError(413, `the request's body is longer than ${MAX_BODY_BYTES} bytes`);
    parts.push(part);
  }
  if (sizeBytes === 0) return {};
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(parts)));
  } catch {
    throw new HttpError(400, "the request's body is not JSON in UTF-8", hint);
  }
}

/** `hint` says what the body may have. Errors: HttpError 400, 413. */
async function readBody<T>(check: Check<T>, request: IncomingMessage, hint: string): Promise<T> {
  return parse(check, await readJson(request, hint), ({ path, problem }) => {
    const subject = path === '' ? "the request's body" : `the field ${path} of the request's body`;
    return new HttpError(400, `${subject} ${problem}`, hint);
  });
}

/** NUL ends a string in system calls, and half of a surrogate pair has no UTF-8. */
const NOT_FOR_SYSTEM = /\0|\p{Surrogate}/u;

const systemText = satisfying(
  text(),
  (value) => !NOT_FOR_SYSTEM.test(value),
  'contains a character that no path or tag can have: NUL or an unpaired surrogate',
);

const saveBody = object({
  store: optional(nullable(satisfying(systemText, isAbsolute, 'is not an absolute path'))),
  tags: optional(list(systemText, 0, MAX_BODY_BYTES)),
  then: optional(nullable(oneOf('resume', 'pause', 'stop'))),
});

/** Errors: HttpError 400, 403, 413. */
export async function readSave(request: IncomingMessage, isOverTcp: boolean): Promise<SaveRequest> {
  const body = await readBody(saveBody, request, 'Its fields are store, tags and then.');
  const { store = null, tags = [], then = null } = body;
  if (store !== null && isOverTcp)
    throw new HttpError(403, 'a save over TCP cannot choose the store', 'Use the Unix socket.');
  return { store, tags, then };
}

const changeBody = object({
  labels: optional(labels),
  lifetimeMs: optional(nullable(integer(1, MAX_LIFETIME_MS))),
});

/** Errors: HttpError 400, 413. */
export const readChange = async (request: IncomingMessage): Promise<MachineChange> =>
  await readBody(changeBody, request, 'Its fields are labels and lifetimeMs.');

const stopBody = object({
  force: optional(flag),
  discard: optional(flag),
  timeoutMs: optional(integer(0, MAX_STOP_TIMEOUT_MS)),
});

/** Errors: HttpError 400, 413. */
export async function readStop(request: IncomingMessage): Promise<StopRequest> {
  const body = await readBody(stopBody, request, 'Its fields are force, discard and timeoutMs.');
  const { force = false, discard = false, timeoutMs = STOP_TIMEOUT_MS } = body;
  return { force, discard, timeoutMs };
}

/** Errors: HttpError 400, 413. */
export async function requireNoBody(request: IncomingMessage): Promise<void> {
  await readBody(object({}), request, 'This request takes no body.');
}

/** How many bytes of past output the viewer wants. Errors: HttpError 400. */
export function parseHistory(query: URLSearchParams): number {
  const history = query.get('history');
  if (history === null) return HISTORY_BYTES;
  if (!/^\d{1,9}$/.test(history))
    throw new HttpError(400, 'history is not a number of bytes', 'Example: /console?history=65536.');
  return Math.min(Number(history), RING_BYTES);
}

/** The number of a save. Errors: HttpError 400. */
export function parseNumber(query: URLSearchParams): number {
  const number = query.get('number') ?? '';
  if (/^[1-9]\d{0,14}$/.test(number)) return Number(number);
  throw new HttpError(400, 'the query has no number of a save', 'Use DELETE /save?number=N.');
}

/** Errors: HttpError 400. */
export function parseTarget(target: string): URL {
  try {
    return new URL(target, 'http://machine');
  } catch {
    throw new HttpError(
      400,
      `${JSON.stringify(target)} is not a valid request target`,
      'Use a path, such as /machine.',
    );
  }
}

/** Errors: HttpError 403. */
export function requireLoopback({ headers }: IncomingMessage, port: number): void {
  const wrong = wrongOrigin(headers, loopbackOrigins(port));
  if (wrong !== null) throw new HttpError(403, wrong, `Use http://127.0.0.1:${port}.`);
}

/** Errors: HttpError 401. */
export function requireToken({ headers: { authorization } }: IncomingMessage, token: string): void {
  const given = bearerOf(authorization);
  if (given !== null && isSameSecret(given, token)) return;
  throw new HttpError(
    401,
    authorization === undefined ? 'the request has no token' : 'the token is not valid',
    'Send "Authorization: Bearer TOKEN" with the token in ~/.local/state/livesnap/token, or use the Unix socket.',
  );
}
