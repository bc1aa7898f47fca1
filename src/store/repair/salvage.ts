/**
 * Salvage: writes the next generation of a damaged pack from everything that can still be read of it (docs/format.md,
 * "Repair").
 *
 * Invariants:
 * - A chunk keeps its number.
 * - Bytes come only from a frame that passed its checksum, or from a chunk of another pack with the same digest.
 * - All digests of the new pack have one ID, that of the lowest generation whose digests can be read. A chunk that another
 *   generation lists under another ID is verified by that one, and gets its new digest from the verified bytes.
 * - A chunk that cannot be recovered stays listed as lost, with its identity if that is known.
 * - The damaged files are not changed.
 * - Memory: a few bits a chunk for each damaged pack, since every pack of a store may be damaged. Files and lists are
 *   read again when they are needed. Only the lists of a pack without a trailer (up to 180 KB) are kept, because making
 *   them takes reading the whole file.
 */

import { BitSet } from '../../bit-set.js';
import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError, nullIfDamaged } from '../disk/damage.js';
import { DEFAULT_DIGEST, DIGEST_BYTES, hasDigest } from '../pack/digest.js';
import { FRAME_BYTES, FrameFlag, PACK_CHUNKS, type PackName } from '../pack/pack-format.js';
import type { PackLists } from '../pack/pack-lists.js';
import type { PackReader } from '../pack/pack-reader.js';
import { openDamagedPack } from '../pack/pack-scan.js';
import { PackSet } from '../pack/pack-set.js';
import { PackWriter, type SealedPack } from '../pack/pack-writer.js';

export interface Identity {
  readonly fingerprint: Uint8Array;
  /** The ID of the digest. */
  readonly digestId: number;
  readonly digest: Uint8Array;
}

export interface SalvageResult {
  readonly pack: SealedPack;
  readonly healedChunks: number;
  readonly lostChunks: number;
}

/** Finds the bytes of a chunk with this digest in another pack, or null. */
export type Heal = (identity: Identity) => Uint8Array | null;

const NO_IDENTITY = { fingerprint: new Uint8Array(8), digest: new Uint8Array(DIGEST_BYTES) };

/** Chunk numbers of one pack. */
const newChunkSet = (): BitSet => new BitSet(PACK_CHUNKS);

/** The known identities of a pack's chunks, by number. Takes more than a megabyte, so it is not kept. */
export class Identities {
  readonly known = newChunkSet();
  readonly #fingerprints = new Uint8Array(PACK_CHUNKS * 8);
  readonly #digests = new Uint8Array(PACK_CHUNKS * DIGEST_BYTES);
  readonly #digestIds = new Uint16Array(PACK_CHUNKS);
  #firstId: number | null = null;

  /** The ID of the digest that was added first; null: there is none. */
  get firstId(): number | null {
    return this.#firstId;
  }

  /** The first identity of a chunk counts. A chunk that was lost with its list has zeros, which are not an identity. */
  add(number: number, { fingerprint, digestId, digest }: Identity): void {
    if (this.known.has(number) || digest.every((byte) => byte === 0)) return;
    this.known.add(number);
    this.#fingerprints.set(fingerprint, number * 8);
    this.#digests.set(digest, number * DIGEST_BYTES);
    this.#digestIds[number] = digestId;
    this.#firstId ??= digestId;
  }

  of(number: number): Identity | null {
    if (!this.known.has(number)) return null;
    return {
      fingerprint: this.#fingerprints.subarray(number * 8, number * 8 + 8),
      digestId: this.#digestIds[number]!,
      digest: this.#digests.subarray(number * DIGEST_BYTES, (number + 1) * DIGEST_BYTES),
    };
  }
}

/** The files that packs are salvaged from, under numbers of its own. A limited number is open at once. */
export class SalvageFiles extends PackSet {
  readonly #files: { readonly name: PackName; readonly lists: PackLists | null }[] = [];

  constructor(ops: PageOps, dir: string) {
    super(ops, dir, () => undefined);
  }

  /** Returns the number of the file that `reader` has read. */
  add(reader: PackReader): number {
    const { pack, footer, frames, numbers, isSealed } = reader;
    return (
      this.#files.push({ name: pack, lists: isSealed ? null : { footer, frames, numbers, isSealed } }) - 1
    );
  }

  protected override openPack(file: number): PackReader {
    const { name, lists } = this.#files[file]!;
    return openDamagedPack(this.ops, this.dir, name, lists);
  }
}

/** A generation from which chunks or identities are taken. */
interface Source {
  readonly file: number;
  /** Chunks to read from here. */
  readonly found: BitSet;
  /** Chunks whose identity is taken from here only: another generation may be of another store. */
  readonly identified: BitSet;
}

/** One frame. A thread reads one at a time. */
const scratch = new Uint8Array(FRAME_BYTES);

export class Salvage {
  readonly #sources: Source[] = [];
  /** Chunks that a trailer lists. */
  readonly #listed = newChunkSet();
  /** Chunks that are manifest blocks. */
  readonly #manifest = newChunkSet();
  #wasSealed = false;

  /** `names`: generations of one pack that are on disk, in any condition. Errors: NEWER_FORMAT. */
  constructor(
    readonly files: SalvageFiles,
    readonly number: number,
    readonly names: readonly PackName[],
  ) {
    const identities = new Identities();
    for (const name of names) {
      try {
        const reader = openDamagedPack(files.ops, files.dir, name);
        try {
          this.#survey(reader, identities);
        } finally {
          reader.close();
        }
      } catch (error) {
        if (!(error instanceof DamageError)) throw error; // A file that cannot be opened gives nothing.
      }
    }
  }

  /** Whether the trailer of a generation can be read. A pack without one may be of a save that did not commit. */
  get wasSealed(): boolean {
    return this.#wasSealed;
  }

  /** Listed chunks that cannot be read. */
  get lost(): number[] {
    return [...this.#listed].filter((number) => !this.#sourceOf(number));
  }

  /** Chunks that can be read. */
  get found(): number[] {
    return this.#sources.flatMap(({ found }) => [...found]);
  }

  get isEmpty(): boolean {
    return this.#listed.isEmpty && this.#sources.every(({ found }) => found.isEmpty);
  }

  /** Whether this lists the chunks of `other` with the same identities, and can read every chunk that `other` can. */
  hasAllOf(other: Salvage): boolean {
    const mine = this.identities();
    const theirs = other.identities();
    for (let number = 0; number < PACK_CHUNKS; number++) {
      if (this.#sourceOf(number) === undefined && other.#sourceOf(number) !== undefined) return false;
      if (this.#listed.has(number) !== (other.#listed.has(number) || other.#sourceOf(number) !== undefined))
        return false;
      const theirIdentity = theirs.of(number);
      if (theirIdentity && !isSame(mine.of(number), theirIdentity)) return false;
    }
    return true;
  }

  #sourceOf(number: number): Source | undefined {
    return this.#sources.find(({ found }) => found.has(number));
  }

  /** Adds a generation. Chunks of a lower one count before its own: a higher one may be of another store. */
  #survey(reader: PackReader, identities: Identities): void {
    this.#wasSealed ||= reader.isSealed;
    const lists = identitiesOf(reader);
    const found = newChunkSet();
    const identified = newChunkSet();
    let index = -1;
    for (const frame of reader.frames) {
      index++;
      const isReadable = isFrameReadable(reader, index);
      for (let i = 0; i < frame.chunks; i++) {
        const position = frame.first + i;
        const number = reader.numbers[position]!;
        if ((frame.flags & FrameFlag.manifest) !== 0) this.#manifest.add(number);
        if (this.#sourceOf(number)) continue;
        if (lists) {
          this.#listed.add(number);
          const before = identities.known.has(number);
          identities.add(number, identityAt(reader, lists, position));
          if (!before && identities.known.has(number)) identified.add(number);
        }
        if (!isReadable) continue;
        const identity = identities.of(number);
        const page = scratch.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
        if (!identity || hasDigest(this.files.ops, identity.digestId, page, identity.digest))
          found.add(number);
      }
    }
    if (!identified.isEmpty || !found.isEmpty)
      this.#sources.push({ file: this.files.add(reader), found, identified });
  }

  /** The identities of listed chunks. */
  identities(): Identities {
    const identities = new Identities();
    for (const { file, identified } of this.#sources) {
      const reader = identified.isEmpty ? null : nullIfDamaged(() => this.files.pack(file));
      const lists = reader && identitiesOf(reader);
      if (lists)
        reader.numbers.forEach((number, position) => {
          if (identified.has(number)) identities.add(number, identityAt(reader, lists, position));
        });
    }
    return identities;
  }

  /** The bytes of a chunk, valid until the next call; null if they cannot be read. */
  read(number: number): { bytes: Uint8Array; offset: number } | null {
    const source = this.#sourceOf(number);
    return source ? nullIfDamaged(() => this.files.chunk(source.file, number)) : null;
  }

  /**
   * Writes the next generation. `needed`: chunk numbers that snapshots refer to; they are listed in any case. Errors:
   * NO_SPACE, SYSTEM.
   */
  write(generation: number, needed: Iterable<number>, heal: Heal): SalvageResult {
    const numbers = newChunkSet();
    for (const some of [this.#listed, this.found, needed]) for (const number of some) numbers.add(number);
    const identities = this.identities();
    const digest = identities.firstId ?? DEFAULT_DIGEST;
    const writer = new PackWriter(this.files.ops, this.files.dir, this.number, generation, { digest });
    let healedChunks = 0;
    let lostChunks = 0;
    try {
      for (const number of numbers) {
        const identity = identities.of(number);
        const listed = identity?.digestId === digest ? identity : null;
        const isManifest = this.#manifest.has(number);
        const own = this.read(number);
        const other = !own && identity ? heal(identity) : null;
        if (own || other) {
          const bytes = own?.bytes ?? other!;
          const offset = own?.offset ?? 0;
          const fingerprint = identity?.fingerprint ?? this.#hash(bytes, offset);
          writer.appendNumbered(bytes, offset, fingerprint, isManifest, number, listed?.digest);
          if (!own) healedChunks++;
        } else {
          const known = listed ?? NO_IDENTITY;
          writer.appendLost(number, known.fingerprint, known.digest, isManifest);
          lostChunks++;
        }
      }
      const pack = writer.seal();
      writer.close();
      return { pack, healedChunks, lostChunks };
    } catch (error) {
      writer.abandon();
      throw error;
    }
  }

  #hash(bytes: Uint8Array, offset: number): Uint8Array {
    const fingerprint = new Uint8Array(8);
    this.files.ops.hashPages(bytes.subarray(offset, offset + PAGE_BYTES), 1, fingerprint);
    return fingerprint;
  }
}

type IdentityLists = ReturnType<PackReader['readIdentities']>;

const identityAt = (
  { footer }: PackReader,
  { fingerprints, digests }: IdentityLists,
  position: number,
): Identity => ({
  fingerprint: fingerprints.subarray(position * 8, position * 8 + 8),
  digestId: footer.digest,
  digest: digests.subarray(position * DIGEST_BYTES, (position + 1) * DIGEST_BYTES),
});

const isSame = (one: Identity | null, other: Identity): boolean =>
  one?.digestId === other.digestId && Buffer.compare(one.digest, other.digest) === 0;

const identitiesOf = (reader: PackReader): IdentityLists | null =>
  nullIfDamaged(() => reader.readIdentities());

const isFrameReadable = (reader: PackReader, frame: number): boolean =>
  nullIfDamaged(() => {
    reader.readFrame(frame, scratch);
    return true;
  }) ?? false;
