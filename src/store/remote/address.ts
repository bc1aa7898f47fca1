/**
 * The names of stores: an address with a scheme, or a directory of this machine.
 *
 * Invariants:
 * - An address is used whole or refused. Dropping or changing a part of it would name another store.
 * - Text that scp or rsync would take for a host is never used as a directory.
 */
import { LivesnapError } from '../../errors.js';

const ENCODING_HINT = 'Write ? as %3F, # as %23, % as %25, and a space at the end as %20.';

/** `host:path` and `user@host:path`, by the rule of scp: a colon before the first slash, but not as first character. */
const SCP_ADDRESS = /^([^/:[]*\[[^/\]]*\]|[^/:]+):(.*)$/s;

/** The match of {@link SCP_ADDRESS}; null for a path. On Windows a drive is one letter before a colon. */
function scpAddress(text: string): RegExpExecArray | null {
  return process.platform === 'win32' && /^[a-z]:/i.test(text) ? null : SCP_ADDRESS.exec(text);
}

/** Words before the colon in the addresses of restic and rclone: hosts are hardly named so. */
const OTHER_REMOTES = new Set(['sftp', 'rest', 's3', 'b2', 'azure', 'gs', 'swift', 'rclone']);

const schemeIn = (text: string): string | null =>
  /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase() ?? null;

/** The scheme of an address, in lower case. Null: the text is a path. Errors: USAGE (an scp-style address). */
export function schemeOf(text: string): string | null {
  const scheme = schemeIn(text);
  const scp = scpAddress(text);
  if (scheme !== null || !scp) return scheme;
  const [, host, path] = scp as unknown as [string, string, string];
  if (OTHER_REMOTES.has(host))
    throw new LivesnapError('USAGE', `${shown(text)} is not an address of livesnap`, {
      hint: 'Use a directory, ssh://host/dir, or, to copy from a web server, http://host/path.',
    });
  const encoded = path.replace(/[%?#\p{Cc}]|\s$/gu, encodeURIComponent);
  const dir = encoded.startsWith('/') ? encoded : `/~/${encoded.replace(/^~\//, '')}`;
  throw new LivesnapError('USAGE', `${shown(text)} is an scp-style address`, {
    hint: `Write ssh://${host}${dir}, or ./${text} for a local directory of that name.`,
  });
}

/** For verbs that take only local directories. Errors: USAGE. */
export function requireLocal(text: string): string {
  if (schemeIn(text) !== null || scpAddress(text))
    throw new LivesnapError('USAGE', `${shown(text)} is an address, not a directory`, {
      hint: `Only livesnap copy takes addresses. Write ./${text} for a local directory of that name.`,
    });
  return text;
}

/** An address for error messages, without its password. */
export const shown = (address: string): string =>
  JSON.stringify(address.replace(/(:\/\/[^/@:]*):[^/@]*@/, '$1:…@'));

/** `example`: a valid address of this scheme. Errors: USAGE. */
export function parseAddress(address: string, example: string): URL {
  // URL would cut the path at the first two, and drop the others.
  if (/[?#\p{Cc}]|\s$/u.test(address))
    throw new LivesnapError(
      'USAGE',
      `${shown(address)} has a ?, a #, a control character or a space at its end`,
      {
        hint: ENCODING_HINT,
      },
    );
  try {
    return new URL(address);
  } catch {
    throw new LivesnapError('USAGE', `${shown(address)} is not a valid address`, {
      hint: `Use the form ${example}.`,
    });
  }
}

/** Undoes the percent-encoding of a part of an address. Errors: USAGE. */
export function decodePart(address: string, part: string): string {
  let text: string | null = null;
  try {
    text = decodeURIComponent(part);
  } catch {
    // not a percent-encoding of UTF-8
  }
  if (text === null || /\p{Cc}/u.test(text))
    throw new LivesnapError(
      'USAGE',
      `${shown(address)} has an invalid percent-encoding or a control character`,
      {
        hint: ENCODING_HINT,
      },
    );
  return text;
}
