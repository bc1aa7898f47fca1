/**
 * How a store elsewhere is named: an address with a scheme, or a directory of this machine. Invariants: an address is
 * read whole: nothing is cut off, left out or made different on the way, as it would be another store. Text that other
 * programs take for a host is never taken for a directory.
 */
import { LivesnapError } from '../../errors.js';

const hint = 'Write ? as %3F, # as %23, % as %25, and a space at the end as %20.';

/** `host:path` and `user@host:path`, by the rule of scp: a colon before the first slash, and not at the beginning. */
const SCP_ADDRESS = /^([^/:[]*\[[^/\]]*\]|[^/:]+):(.*)$/s;

const schemeIn = (text: string): string | null =>
  /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase() ?? null;

/** The scheme of an address in lower case; null: the text is a path. Errors: USAGE (an scp-style address). */
export function schemeOf(text: string): string | null {
  const scheme = schemeIn(text);
  const scp = SCP_ADDRESS.exec(text);
  if (scheme !== null || !scp) return scheme;
  const [, host, path] = scp as unknown as [string, string, string];
  const encoded = path.replace(/[%?#\p{Cc}]|\s$/gu, encodeURIComponent);
  const dir = encoded.startsWith('/') ? encoded : `/~/${encoded.replace(/^~\//, '')}`;
  throw new LivesnapError('USAGE', `${shown(text)} is an scp-style address`, {
    hint: `Write ssh://${host}${dir}, or ./${text} for a directory of that name here.`,
  });
}

/** For verbs that take directories of this machine only. Errors: USAGE. */
export function requireLocal(text: string): string {
  if (schemeIn(text) !== null || SCP_ADDRESS.test(text))
    throw new LivesnapError('USAGE', `${shown(text)} is an address, not a directory`, {
      hint: `Only livesnap copy reaches other hosts (ssh://user@host/path). Write ./${text} for a directory of that name here.`,
    });
  return text;
}

/** An address as errors show it: without its password. */
export const shown = (address: string): string =>
  JSON.stringify(address.replace(/(:\/\/[^/@:]*):[^/@]*@/, '$1:…@'));

/** `example`: what addresses of that scheme look like. Errors: USAGE. */
export function parseAddress(address: string, example: string): URL {
  // A URL ends its path at the first two, and loses the others.
  if (/[?#\p{Cc}]|\s$/u.test(address))
    throw new LivesnapError('USAGE', `${shown(address)} is no address of a store`, { hint });
  try {
    return new URL(address);
  } catch {
    throw new LivesnapError('USAGE', `${shown(address)} is no address`, {
      hint: `Give ${example}.`,
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
    throw new LivesnapError('USAGE', `part of ${shown(address)} is no text`, {
      hint,
    });
  return text;
}
