/**
 * Which names a listener has. A request over TCP must be for one of them (Host), and a page that sends it must come from
 * one (Origin). So no web page from elsewhere reaches an API, not even by a DNS name that points here (DNS rebinding).
 */
import type { IncomingHttpHeaders } from 'node:http';
import { isIPv4 } from 'node:net';

/** The origins under which a listener is reached: `http://127.0.0.1:7070`. */
export type Origins = ReadonlySet<string>;

export const isLoopback = (address: string): boolean =>
  (isIPv4(address) && address.startsWith('127.')) || address === '::1' || address === 'localhost';

export const loopbackOrigins = (port: number): Origins =>
  new Set(['127.0.0.1', 'localhost', '[::1]'].map((host) => new URL(`http://${host}:${port}`).origin));

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
