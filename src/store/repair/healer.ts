/**
 * Healing: where chunks that are lost still have their bytes, in any pack of a store under repair (docs/format.md,
 * "Repair").
 *
 * Invariant: bytes heal a chunk only if they have its SHA-256. All packs are searched once, for all that is lost; of
 * what they have only chunks with a fingerprint that is wanted are kept in mind.
 */

import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError } from '../disk/damage.js';
import { packFile } from '../disk/layout.js';
import type { PackRow } from '../index/index-database.js';
import { hasSha256 } from '../pack/hashes.js';
import { PackReader } from '../pack/pack-reader.js';
import { PackSet } from '../pack/pack-set.js';
import type { Place } from '../snapshot/block-list.js';
import type { Heal, Salvage } from './salvage.js';

/** The packs of a store under repair: those that are whole, and damaged ones as far as they can be read. */
export class PacksUnderRepair extends PackSet {
  constructor(
    ops: PageOps,
    dir: string,
    readonly whole: ReadonlyMap<number, PackRow>,
    readonly damaged: ReadonlyMap<number, Salvage>,
  ) {
    super(ops, dir, (number) => whole.get(number)?.generation);
  }

  override chunk(pack: number, number: number): { bytes: Uint8Array; offset: number } {
    const salvage = this.damaged.get(pack);
    if (!salvage) return super.chunk(pack, number);
    const found = salvage.read(number);
    if (!found) throw new DamageError(packFile(pack, 0), null, `chunk ${number} cannot be read`);
    return found;
  }
}

export class Healer {
  readonly #donors = new Map<string, Place>();
  readonly #packs: PackSet;

  constructor(
    ops: PageOps,
    dir: string,
    whole: ReadonlyMap<number, PackRow>,
    damaged: ReadonlyMap<number, Salvage>,
  ) {
    this.#packs = new PacksUnderRepair(ops, dir, new Map(whole), damaged);
    const wanted = lostFingerprints(damaged.values());
    if (wanted.length === 0) return;
    for (const row of whole.values()) {
      const reader = new PackReader(ops, dir, row);
      try {
        const { fingerprints, digests } = reader.readIdentities();
        reader.numbers.forEach((chunk, i) => {
          if (includes(wanted, fingerprints.readUInt32LE(8 * i)))
            this.#donors.set(digests.toString('latin1', 32 * i, 32 * i + 32), { pack: row.number, chunk });
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
    try {
      const { bytes, offset } = this.#packs.chunk(donor.pack, donor.chunk);
      const page = bytes.slice(offset, offset + PAGE_BYTES);
      return hasSha256(page, digest) ? page : null;
    } catch (error) {
      if (error instanceof DamageError) return null;
      throw error;
    }
  };

  close(): void {
    this.#packs.close();
  }
}

const textOf = (digest: Uint8Array): string => Buffer.from(digest).toString('latin1');

/** Of all chunks that are listed and cannot be read, ascending. */
function lostFingerprints(damaged: Iterable<Salvage>): Uint32Array {
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

/** Half of a fingerprint tells enough apart, and is a number; the SHA-256 decides. */
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
