/** Hashes of lists and chunks: XXH64 guards against accidents, SHA-256 identifies chunks between hosts. */
import { createHash } from 'node:crypto';
import type { PageOps } from '../../native/pages.js';

const scratch = Buffer.alloc(8);

/** XXH64 of all of `bytes`. */
export function xxh64(ops: PageOps, bytes: Uint8Array): bigint {
  ops.checksum(bytes, 0, bytes.length, 0, 0, scratch);
  return scratch.readBigUInt64LE();
}

/** Whether bytes have this SHA-256. */
export const hasSha256 = (bytes: Uint8Array, digest: Uint8Array): boolean =>
  Buffer.compare(createHash('sha256').update(bytes).digest(), digest) === 0;
