/**
 * The digests of chunks (docs/format.md, "Digests"). A digest is the identity of a chunk between packs and hosts.
 *
 * To add a digest, add one entry to {@link DIGESTS}. Its index there is its ID on disk and in copies, so entries are never
 * removed or moved. To make new packs use it, set {@link DEFAULT_DIGEST}.
 *
 * Invariant: digests are compared only under the same ID.
 */
import { hash } from 'node:crypto';
import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { newerFormat } from '../disk/format-version.js';

/** The length of every digest. */
export const DIGEST_BYTES = 32;

export interface Digest {
  readonly name: string;
  /** Writes the digests of the first `count` pages of `pages`, {@link DIGEST_BYTES} each. */
  compute(ops: PageOps, pages: Uint8Array, count: number, digests: Uint8Array): void;
}

const sha256Digest: Digest = {
  name: 'SHA-256',
  compute(_ops, pages, count, digests) {
    for (let i = 0; i < count; i++)
      digests.set(
        hash('sha256', pages.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES), 'buffer'),
        i * DIGEST_BYTES,
      );
  },
};

const blake3Digest: Digest = {
  name: 'BLAKE3',
  compute: (ops, pages, count, digests) => ops.blake3(pages, count, digests),
};

export const SHA256 = 0;
export const BLAKE3 = 1;
/** Every digest by its ID. */
export const DIGESTS: readonly Digest[] = [sha256Digest, blake3Digest];

/** The digest of the chunks of new packs. */
export const DEFAULT_DIGEST = BLAKE3;

/** `file`: the pack, for the error. Errors: NEWER_FORMAT for an unknown ID. */
export function requireKnownDigest(id: number, file: string): void {
  if (!DIGESTS[id])
    throw newerFormat(`${file}: its digests have ID ${id}, which this livesnap does not know`);
}

/** The digests of the first `count` pages of `pages`, under a known ID. */
export function digestsOf(ops: PageOps, id: number, pages: Uint8Array, count: number): Buffer {
  const digests = Buffer.alloc(count * DIGEST_BYTES);
  DIGESTS[id]!.compute(ops, pages, count, digests);
  return digests;
}

/** Whether a page has this digest under a known ID. */
export const hasDigest = (ops: PageOps, id: number, page: Uint8Array, digest: Uint8Array): boolean =>
  digestsOf(ops, id, page, 1).equals(digest);
