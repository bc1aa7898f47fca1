/**
 * Which names the server has. A request over TCP must be for one of them (Host), and a page that sends it must come from
 * one (Origin). So no web page from elsewhere reaches the API, not even by a DNS name that points here (DNS rebinding).
 */
import { X509Certificate } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { isIPv4 } from 'node:net';
import { LivesnapError } from '../errors.js';

/** The origins under which a listener is reached: `http://127.0.0.1:7070`. */
export type Origins = ReadonlySet<string>;

export const isLoopback = (address: string): boolean =>
  (isIPv4(address) && address.startsWith('127.')) || address === '::1' || address === 'localhost';

const inUrl = (host: string): string => (host.includes(':') ? `[${host}]` : host);

export const loopbackOrigins = (port: number): Origins =>
  new Set(['127.0.0.1', 'localhost', '[::1]'].map((host) => new URL(`http://${host}:${port}`).origin));

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

/** Why a request is refused; null: it is not. */
export function wrongOrigin({ host, origin }: IncomingHttpHeaders, origins: Origins): string | null {
  const hosts = new Set([...origins].map((each) => new URL(each).host));
  const withPort = [...origins].map((each) => {
    const { protocol, hostname, port } = new URL(each);
    return `${hostname}:${port || (protocol === 'https:' ? 443 : 80)}`;
  });
  if (host === undefined || !(hosts.has(host.toLowerCase()) || withPort.includes(host.toLowerCase())))
    return `requests to the host ${JSON.stringify((host ?? '').slice(0, 100))} are not allowed`;
  if (origin !== undefined && !origins.has(origin.toLowerCase()))
    return `requests from the page ${JSON.stringify(origin.slice(0, 100))} are not allowed`;
  return null;
}
