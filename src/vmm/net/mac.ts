/** Ethernet addresses, and the frame that announces one. */
import { randomBytes } from 'node:crypto';
import { NET_HEADER_BYTES } from '../../native/net.js';

export const MAC_BYTES = 6;

/** Locally administered, of one station. */
export function randomMac(): string {
  const bytes = randomBytes(MAC_BYTES);
  bytes[0] = (bytes[0]! & 0xfc) | 0x02;
  return formatMac(bytes);
}

const formatMac = (bytes: Uint8Array): string =>
  Buffer.from(bytes)
    .toString('hex')
    .replace(/..(?=.)/g, '$&:');

/** `mac` matches MAC of net-config.ts. */
export const macBytes = (mac: string): Buffer => Buffer.from(mac.replaceAll(':', ''), 'hex');

const LEAST_FRAME_BYTES = 60;
const ETHERTYPE_RARP = 0x8035;
const ETHERTYPE_IPV4 = 0x0800;
const REQUEST_REVERSE = 3;

/**
 * A RARP request (RFC 903) from `mac` to all, with its virtio header. It tells bridges and switches where the address is
 * now, and needs no IP address.
 */
export function announcement(mac: string): Uint8Array {
  const frame = Buffer.alloc(NET_HEADER_BYTES + LEAST_FRAME_BYTES);
  const address = macBytes(mac);
  const ethernet = frame.subarray(NET_HEADER_BYTES);
  ethernet.fill(0xff, 0, MAC_BYTES);
  address.copy(ethernet, 6);
  ethernet.writeUInt16BE(ETHERTYPE_RARP, 12);
  ethernet.writeUInt16BE(1, 14); // Ethernet
  ethernet.writeUInt16BE(ETHERTYPE_IPV4, 16);
  ethernet.writeUInt8(MAC_BYTES, 18);
  ethernet.writeUInt8(4, 19);
  ethernet.writeUInt16BE(REQUEST_REVERSE, 20);
  address.copy(ethernet, 22);
  address.copy(ethernet, 32);
  return frame;
}
