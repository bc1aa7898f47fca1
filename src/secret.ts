/** Secrets: how they are made, sent and compared. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

const SECRET_BYTES = 32;

export const newSecret = (): string => randomBytes(SECRET_BYTES).toString('base64url');

/** Of fixed length, so that comparing two tells nothing about the lengths of the secrets. */
export const digestOf = (secret: string): Buffer => createHash('sha256').update(secret).digest();

/** Takes the same time, whatever differs. */
export const isSameSecret = (a: string, b: string): boolean => timingSafeEqual(digestOf(a), digestOf(b));

/** The secret of a header Authorization (RFC 6750, section 2.1). Null: it has none of ours. */
export const bearerOf = (authorization: string | undefined): string | null =>
  /^Bearer ([\w.-]{1,256})$/i.exec(authorization ?? '')?.[1] ?? null;
