/**
 * Addresses of stores elsewhere, as far as all kinds have it in common. Invariant: what is read from an address is all of
 * it: nothing is cut off, left out or made different on the way, as it would be another store.
 */
import { LivesnapError } from '../../errors.js';

const hint = 'Write ? as %3F, # as %23, % as %25, and a space at the end as %20.';

/** Errors: USAGE. */
export function parseAddress(address: string): URL {
  // A URL ends its path at the first two, and loses the others.
  if (/[?#\p{Cc}]|\s$/u.test(address))
    throw new LivesnapError('USAGE', `${JSON.stringify(address)} is no address of a store`, { hint });
  try {
    return new URL(address);
  } catch {
    throw new LivesnapError('USAGE', `${JSON.stringify(address)} is no address`, {
      hint: 'Give ssh://host/dir, or (to copy from) http://host/path.',
    });
  }
}

/** A part of an address as it was meant. Errors: USAGE. */
export function decodePart(address: string, part: string): string {
  let text: string | null = null;
  try {
    text = decodeURIComponent(part);
  } catch {
    // a % that begins nothing
  }
  if (text === null || /\p{Cc}/u.test(text))
    throw new LivesnapError('USAGE', `${JSON.stringify(part)} in ${JSON.stringify(address)} is no text`, {
      hint,
    });
  return text;
}
