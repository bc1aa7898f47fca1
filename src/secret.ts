/** Secrets: how they are made and compared. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

const SECRET_BYTES = 32;

export const newSecret = (): string => randomBytes(SECRET_BYTES).toString('base64url');

/** Of fixed length, so that comparing two tells nothing about the lengths of the secrets. */
export const digestOf = (secret: string): Buffer => createHash('sha256').update(secret).digest();

/** Takes the same time, whatever differs. */
export const isSameSecret = (a: string, b: string): boolean => timingSafeEqual(digestOf(a), digestOf(b));
