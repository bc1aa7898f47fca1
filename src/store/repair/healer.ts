/**
 * Healing: finds the bytes of lost chunks in any pack of a store under repair (docs/format.md, "Repair").
 *
 * Invariants:
 * - Bytes heal a chunk only if they have its SHA-256.
 * - All packs are searched once, for all lost chunks. Only chunks with a wanted fingerprint are remembered.
 */

import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import type { PackRow } from '../index/index-database.js';
import { hasSha256 } from '../pack/hashes.js';
import { SHA256_BYTES } from '../pack/pack-format.js';
import { PackReader } from '../pack/pack-reader.js';
import type { PackSet } from '../pack/pack-set.js';
import type { Place } from '../snapshot/block-list.js';
import { ReadablePacks } from './packs-under-repair.js';
import { type Heal, nullIfDamaged, type Salvage } from './salvage.js';

export class Healer {
  /** Chunks that may heal others, by SHA-256. */
  readonly #donors = new Map<string, Place>();
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
          if (includes(wanted, fingerprints.readUInt32LE(8 * i)))
            this.#donors.set(textOf(digests.subarray(SHA256_BYTES * i, SHA256_BYTES * (i + 1))), {
              pack: row.number,
              chunk,
            });
        });
      } finally {
        reader.close();
      }
    }
    for (const [pack, salvage] of damaged) {
      const identities = salvage.identities();
      for (const chunk of salvage.found) {
        const identity = identities.of(chunk);
        if (identity && includes(wanted, halfOf(identity.fingerprint)))
          this.#donors.set(textOf(identity.digest), { pack, chunk });
      }
    }
  }

  readonly heal: Heal = (digest) => {
    const donor = this.#donors.get(textOf(digest));
    if (!donor) return null;
    return nullIfDamaged(() => {
      const { bytes, offset } = this.#packs.chunk(donor.pack, donor.chunk);
      const page = bytes.slice(offset, offset + PAGE_BYTES);
      return hasSha256(page, digest) ? page : null;
    });
  };

  close(): void {
    this.#packs.close();
  }
}

const textOf = (digest: Uint8Array): string => Buffer.from(digest).toString('latin1');

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

/** Half of a fingerprint is a number and sorts out nearly everything. The SHA-256 decides. */
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
