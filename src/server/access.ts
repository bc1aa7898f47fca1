/**
 * Who may call the API: secrets and how they are checked.
 *
 * - The token is the server's own secret. Every secret below is worth as much as the token, for less time.
 * - A code is for one sign-in of a browser, within 60 s.
 * - A session is what a code is traded for. It lasts 12 hours. It is signed with the token, so it outlives the server's
 *   process and ends when the token is replaced.
 * - A ticket is for one GET of one path, within 60 s: a browser cannot send a header with a download.
 *
 * Invariants:
 * - No comparison takes a time that depends on the secret.
 * - A code and a ticket are used once: they are forgotten before they are compared with anything else.
 * - What is remembered is bounded.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { bearerOf, digestOf, isSameSecret, newSecret } from '../secret.js';

export const CODE_LIFETIME_MS = 60_000;
export const SESSION_LIFETIME_MS = 12 * 3_600_000;
/** Codes and tickets that are not used yet. When there are more, the oldest ends. */
const MAX_UNUSED = 256;
/** The times of sessions are in milliseconds, in base 36. */
const SESSION = /^s1\.([0-9a-z]{1,12})\.([\w-]{22})\.([\w-]{43})$/;

/** How a caller has proved that it may call. */
export type Caller = 'socket' | 'token' | 'session' | 'ticket';

/** A secret that ends. */
export interface Grant {
  readonly secret: string;
  /** ISO 8601, UTC. */
  readonly expiresAt: string;
}

/** Secrets that are used once. Kept by their digest, so that looking one up tells nothing about the others. */
class OneTimeSecrets {
  readonly #unused = new Map<string, { readonly purpose: string; readonly endsMs: number }>();

  issue(purpose: string, nowMs: number): Grant {
    const secret = newSecret();
    for (const [key, { endsMs }] of this.#unused) {
      if (endsMs > nowMs && this.#unused.size < MAX_UNUSED) break; // oldest first
      this.#unused.delete(key);
    }
    const endsMs = nowMs + CODE_LIFETIME_MS;
    this.#unused.set(digestOf(secret).toString('base64'), { purpose, endsMs });
    return { secret, expiresAt: new Date(endsMs).toISOString() };
  }

  /** Whether the secret was issued for this purpose, has not ended and was not used. */
  use(secret: string, purpose: string, nowMs: number): boolean {
    const key = digestOf(secret).toString('base64');
    const found = this.#unused.get(key);
    this.#unused.delete(key);
    return found !== undefined && found.purpose === purpose && found.endsMs > nowMs;
  }
}

export class Access {
  readonly #token: string;
  readonly #nowMs: () => number;
  readonly #codes = new OneTimeSecrets();
  readonly #tickets = new OneTimeSecrets();

  constructor(token: string, nowMs: () => number = Date.now) {
    this.#token = token;
    this.#nowMs = nowMs;
  }

  /** The caller that a header `Authorization: Bearer SECRET` proves. Null: the secret is not valid. */
  callerOf(authorization: string | undefined): 'token' | 'session' | null {
    const secret = bearerOf(authorization);
    if (secret === null) return null;
    if (isSameSecret(secret, this.#token)) return 'token';
    return this.isSession(secret) ? 'session' : null;
  }

  /** A code for a sign-in. */
  newCode(): Grant {
    return this.#codes.issue('code', this.#nowMs());
  }

  /** Trades a code for a session. Null: the code is unknown, used, or has ended. */
  newSession(code: string): Grant | null {
    const nowMs = this.#nowMs();
    if (!this.#codes.use(code, 'code', nowMs)) return null;
    const endsMs = nowMs + SESSION_LIFETIME_MS;
    const claim = `${endsMs.toString(36)}.${randomBytes(16).toString('base64url')}`;
    return { secret: `s1.${claim}.${this.#sign(claim)}`, expiresAt: new Date(endsMs).toISOString() };
  }

  isSession(secret: string): boolean {
    const [, ends, nonce, signature] = SESSION.exec(secret) ?? [];
    if (ends === undefined || nonce === undefined || signature === undefined) return false;
    return (
      isSameSecret(signature, this.#sign(`${ends}.${nonce}`)) && Number.parseInt(ends, 36) > this.#nowMs()
    );
  }

  #sign(claim: string): string {
    return createHmac('sha256', this.#token).update(`livesnap session ${claim}`).digest('base64url');
  }

  /** A ticket for one GET of `path`, which has no query but that of the store. */
  newTicket(path: string): Grant {
    return this.#tickets.issue(path, this.#nowMs());
  }

  useTicket(ticket: string, path: string): boolean {
    return this.#tickets.use(ticket, path, this.#nowMs());
  }
}
