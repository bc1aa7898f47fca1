/**
 * Healing: finds the bytes of lost chunks in any pack of a store under repair (docs/format.md, "Repair").
 *
 * Invariants:
 * - Bytes heal a chunk only if they have its digest. Where their own pack lists another digest, the wanted one is computed
 *   from them.
 * - All packs are searched once, for all lost chunks. Only chunks with a wanted fingerprint are remembered.
 * - A chunk is read at most once for each ID of a digest to find out what it can heal, however many fingerprints are equal.
 */

import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { nullIfDamaged } from '../disk/damage.js';
import type { PackRow } from '../index/index-database.js';
import { DIGEST_BYTES, digestsOf, hasDigest } from '../pack/digest.js';
import { PackReader } from '../pack/pack-reader.js';
import type { PackSet } from '../pack/pack-set.js';
import type { Place } from '../snapshot/block-list.js';
import { ReadablePacks } from './packs-under-repair.js';
import type { Heal, Identity, Salvage } from './salvage.js';

export class Healer {
  /** Chunks that may heal others, by the ID and the value of a digest. */
  readonly #donors = new Map<string, Place>();
  /** The same chunks by fingerprint, for those that are wanted under another ID. */
  readonly #candidates = new Map<string, Candidate[]>();
  /** Wanted IDs and fingerprints whose candidates are among the donors. */
  readonly #compared = new Set<string>();
  readonly #packs: PackSet;

  constructor(
    ops: PageOps,
    dir: string,
    listed: ReadonlyMap<number, PackRow>,
    damaged: ReadonlyMap<number, Salvage>,
  ) {
    // A copy of the list: donors stay where they were found while damaged packs are replaced.
    this.#packs = new ReadablePacks(ops, dir, new Map(listed), damaged);
    const wanted = lostHalves(damaged.values());
    if (wanted.length === 0) return;
    for (const row of listed.values()) {
      const reader = new PackReader(ops, dir, row);
      try {
        const { fingerprints, digests } = reader.readIdentities();
        reader.numbers.forEach((chunk, i) => {
          if (!includes(wanted, fingerprints.readUInt32LE(8 * i))) return;
          const fingerprint = fingerprints.subarray(8 * i, 8 * (i + 1));
          const digest = digests.subarray(DIGEST_BYTES * i, DIGEST_BYTES * (i + 1));
          this.#add({ fingerprint, digestId: reader.footer.digest, digest }, { pack: row.number, chunk });
        });
      } finally {
        reader.close();
      }
    }
    for (const [pack, salvage] of damaged) {
      const identities = salvage.identities();
      for (const chunk of salvage.found) {
        const identity = identities.of(chunk);
        if (identity && includes(wanted, halfOf(identity.fingerprint))) this.#add(identity, { pack, chunk });
      }
    }
  }

  #add(identity: Identity, place: Place): void {
    const { fingerprint, digestId } = identity;
    this.#donors.set(keyOf(identity), place);
    const candidates = this.#candidates.get(textOf(fingerprint));
    if (candidates) candidates.push({ ...place, digestId });
    else this.#candidates.set(textOf(fingerprint), [{ ...place, digestId }]);
  }

  readonly heal: Heal = (identity) => {
    const page = this.#fromDonor(identity);
    if (page) return page;
    this.#compareOthers(identity);
    return this.#fromDonor(identity);
  };

  #fromDonor(identity: Identity): Uint8Array | null {
    const donor = this.#donors.get(keyOf(identity));
    const page = donor && this.#read(donor);
    return page && hasDigest(this.#packs.ops, identity.digestId, page, identity.digest) ? page : null;
  }

  /** Computes the digest under the wanted ID of all chunks that have the fingerprint and a digest of another ID. */
  #compareOthers({ fingerprint, digestId }: Identity): void {
    const key = `${digestId} ${textOf(fingerprint)}`;
    if (this.#compared.has(key)) return;
    this.#compared.add(key);
    for (const candidate of this.#candidates.get(textOf(fingerprint)) ?? []) {
      if (candidate.digestId === digestId) continue;
      const page = this.#read(candidate);
      if (!page) continue;
      const digest = digestsOf(this.#packs.ops, digestId, page, 1);
      this.#donors.set(keyOf({ fingerprint, digestId, digest }), candidate);
    }
  }

  #read({ pack, chunk }: Place): Uint8Array | null {
    return nullIfDamaged(() => {
      const { bytes, offset } = this.#packs.chunk(pack, chunk);
      return bytes.slice(offset, offset + PAGE_BYTES);
    });
  }

  close(): void {
    this.#packs.close();
  }
}

interface Candidate extends Place {
  /** Of the digest that its pack lists. */
  readonly digestId: number;
}

const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');

const keyOf = ({ digestId, digest }: Identity): string => `${digestId} ${textOf(digest)}`;

/** Halves of the fingerprints of all chunks that are listed and cannot be read, ascending. */
function lostHalves(damaged: Iterable<Salvage>): Uint32Array {
  const parts: Uint32Array[] = [];
  for (const salvage of damaged) {
    const { lost } = salvage;
    if (lost.length === 0) continue;
    const identities = salvage.identities();
    const known = lost.map((number) => identities.of(number)).filter((identity) => identity !== null);
    parts.push(Uint32Array.from(known, ({ fingerprint }) => halfOf(fingerprint)));
  }
  const all = new Uint32Array(parts.reduce((total, { length }) => total + length, 0));
  let done = 0;
  for (const part of parts) {
    all.set(part, done);
    done += part.length;
  }
  return all.sort();
}

/** Half of a fingerprint is a number and sorts out nearly everything. The digest decides. */
const halfOf = (fingerprint: Uint8Array): number =>
  new DataView(fingerprint.buffer, fingerprint.byteOffset).getUint32(0, true);

function includes(ascending: Uint32Array, value: number): boolean {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ascending[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return ascending[low] === value;
}
