/** The names of the server: those in its certificate, and that of a proxy in front. */
import { X509Certificate } from 'node:crypto';
import { LivesnapError } from '../errors.js';
import type { Origins } from '../machine/origin.js';

const inUrl = (host: string): string => (host.includes(':') ? `[${host}]` : host);

/** The names in a certificate, as origins. Errors: USAGE (it names no host). */
export function certificateOrigins(certificate: string, port: number): Origins {
  const { subjectAltName = '' } = new X509Certificate(certificate);
  const names = [...subjectAltName.matchAll(/(?:DNS|IP Address):([^\s,"*]+)(?:,|$)/g)].map(
    ([, name]) => name!,
  );
  if (names.length > 0) return new Set(names.map((name) => new URL(`https://${inUrl(name)}:${port}`).origin));
  throw new LivesnapError('USAGE', 'the certificate names no host', {
    hint: 'Use one with a subjectAltName, or give --public-url.',
  });
}

/** Errors: USAGE. */
export function publicOrigin(url: string): string {
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    throw notPublic(url);
  }
  if (
    parsed.protocol !== 'https:' ||
    parsed.pathname !== '/' ||
    parsed.search !== '' ||
    parsed.username !== ''
  )
    throw notPublic(url);
  return parsed.origin;
}

const notPublic = (url: string): LivesnapError =>
  new LivesnapError('USAGE', `${JSON.stringify(url)} is not the https address of a host`, {
    hint: 'Example: https://vms.example.org.',
  });
