/** XXH64 of lists, which guards them against accidents. */
import type { PageOps } from '../../native/pages.js';

const scratch = Buffer.alloc(8);

/** XXH64 of all of `bytes`. */
export function xxh64(ops: PageOps, bytes: Uint8Array): bigint {
  ops.checksum(bytes, 0, bytes.length, 0, 0, scratch);
  return scratch.readBigUInt64LE();
}
