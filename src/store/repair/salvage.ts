/**
 * Salvage: a damaged pack's next generation, of all that can still be read of it (docs/format.md, "Repair").
 *
 * Invariants: a chunk keeps its number; bytes are taken only from a frame that passed its checksum, or from a chunk of
 * another pack with the same SHA-256; what cannot be had stays listed as lost, with its identity where that is known.
 * The files it reads are not changed. Every pack of a store may be damaged: what is kept of one is a few bits a chunk,
 * and files and lists are read again when they are needed; of a pack without a trailer, whose list took all of the file to
 * make, that list, too (up to 180 KB).
 */

import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError } from '../disk/damage.js';
import { hasSha256 } from '../pack/hashes.js';
import { FRAME_BYTES, FrameFlag, PACK_CHUNKS, type PackName, SHA256_BYTES } from '../pack/pack-format.js';
import type { PackLists } from '../pack/pack-lists.js';
import type { PackReader } from '../pack/pack-reader.js';
import { openDamagedPack } from '../pack/pack-scan.js';
import { PackSet } from '../pack/pack-set.js';
import { PackWriter, type SealedPack } from '../pack/pack-writer.js';

interface Identity {
  readonly fingerprint: Uint8Array;
  readonly digest: Uint8Array;
}

export interface SalvageResult {
  readonly pack: SealedPack;
  readonly healedChunks: number;
  readonly lostChunks: number;
}

/** Gives the bytes of a chunk with this SHA-256, from elsewhere; null: there are none. */
export type Heal = (digest: Uint8Array) => Uint8Array | null;

const NOTHING = new Uint8Array(0);
const NO_IDENTITY: Identity = { fingerprint: new Uint8Array(8), digest: new Uint8Array(SHA256_BYTES) };

/** Numbers of chunks of one pack, a bit each. */
class Numbers implements Iterable<number> {
  readonly #bits = new Uint8Array(PACK_CHUNKS / 8);

  has(number: number): boolean {
    return (this.#bits[number >>> 3]! & (1 << (number & 7))) !== 0;
  }

  add(number: number): void {
    this.#bits[number >>> 3]! |= 1 << (number & 7);
  }

  get isEmpty(): boolean {
    return this.#bits.every((byte) => byte === 0);
  }

  *[Symbol.iterator](): Generator<number> {
    for (let number = 0; number < PACK_CHUNKS; number++) if (this.has(number)) yield number;
  }
}

/** What is known of the chunks of a pack, by number: more than a megabyte, not to be kept. */
export class Identities {
  readonly known = new Numbers();
  readonly #fingerprints = new Uint8Array(PACK_CHUNKS * 8);
  readonly #digests = new Uint8Array(PACK_CHUNKS * SHA256_BYTES);

  /** The first one counts. Of what was lost with its list too the identity is zeros, and none. */
  add(number: number, { fingerprint, digest }: Identity): void {
    if (this.known.has(number) || digest.every((byte) => byte === 0)) return;
    this.known.add(number);
    this.#fingerprints.set(fingerprint, number * 8);
    this.#digests.set(digest, number * SHA256_BYTES);
  }

  of(number: number): Identity | null {
    if (!this.known.has(number)) return null;
    return {
      fingerprint: this.#fingerprints.subarray(number * 8, number * 8 + 8),
      digest: this.#digests.subarray(number * SHA256_BYTES, (number + 1) * SHA256_BYTES),
    };
  }
}

/** The files that packs are salvaged from, by numbers of its own: few are open at once. */
export class SalvageFiles extends PackSet {
  readonly #files: { readonly name: PackName; readonly lists: PackLists | null }[] = [];

  constructor(ops: PageOps, dir: string) {
    super(ops, dir, () => undefined);
  }

  /** `reader`: has read the file before. Only lists that took all of it to make are kept. */
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

/** A generation that has something to give. */
interface Source {
  readonly file: number;
  /** Chunks to be read here. */
  readonly found: Numbers;
  /** Chunks whose identity is taken from here, and from nowhere else: another one may be of another store. */
  readonly identified: Numbers;
}

/** One frame; a thread reads one at a time. */
const scratch = new Uint8Array(FRAME_BYTES);

export class Salvage {
  readonly #sources: Source[] = [];
  /** Chunks that a list names, and those that are manifest blocks. */
  readonly #listed = new Numbers();
  readonly #manifest = new Numbers();
  #wasSealed = false;

  /** `names`: the generations of one pack that are on disk, in any condition. Errors: NEWER_FORMAT. */
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
        if (!(error instanceof DamageError)) throw error; // it cannot be opened at all
      }
    }
  }

  /** Whether one of them was ever sealed: else it may be of a save that did not commit. */
  get wasSealed(): boolean {
    return this.#wasSealed;
  }

  /** Chunks that are listed and cannot be read. */
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

  /** Whether what can be read here is all that can be read there, and of the same identity; what is lost here is lost there. */
  hasAllOf(other: Salvage): boolean {
    const mine = this.identities();
    const theirs = other.identities();
    for (let number = 0; number < PACK_CHUNKS; number++) {
      if (this.#sourceOf(number) === undefined && other.#sourceOf(number) !== undefined) return false;
      if (this.#listed.has(number) !== (other.#listed.has(number) || other.#sourceOf(number) !== undefined))
        return false;
      const theirIdentity = theirs.of(number);
      if (theirIdentity && Buffer.compare(mine.of(number)?.digest ?? NOTHING, theirIdentity.digest) !== 0)
        return false;
    }
    return true;
  }

  #sourceOf(number: number): Source | undefined {
    return this.#sources.find(({ found }) => found.has(number));
  }

  /** What an earlier generation has or lists counts: a later one may be of another store. */
  #survey(reader: PackReader, identities: Identities): void {
    this.#wasSealed ||= reader.isSealed;
    const lists = identitiesOf(reader);
    const found = new Numbers();
    const identified = new Numbers();
    let index = -1;
    for (const frame of reader.frames) {
      index++;
      const isReadable = canRead(reader, index);
      for (let i = 0; i < frame.chunks; i++) {
        const position = frame.first + i;
        const number = reader.numbers[position]!;
        if ((frame.flags & FrameFlag.manifest) !== 0) this.#manifest.add(number);
        if (this.#sourceOf(number)) continue;
        if (lists) {
          this.#listed.add(number);
          const before = identities.known.has(number);
          identities.add(number, identityAt(lists, position));
          if (!before && identities.known.has(number)) identified.add(number);
        }
        if (!isReadable) continue;
        const identity = identities.of(number);
        const page = scratch.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
        if (!identity || hasSha256(page, identity.digest)) found.add(number);
      }
    }
    if (!identified.isEmpty || !found.isEmpty)
      this.#sources.push({ file: this.files.add(reader), found, identified });
  }

  /** The identities of chunks that are listed. */
  identities(): Identities {
    const identities = new Identities();
    for (const { file, identified } of this.#sources) {
      const reader = identified.isEmpty ? null : tried(() => this.files.pack(file));
      const lists = reader && identitiesOf(reader);
      if (lists)
        reader.numbers.forEach((number, position) => {
          if (identified.has(number)) identities.add(number, identityAt(lists, position));
        });
    }
    return identities;
  }

  /** The bytes of a chunk, valid until the next call; null when they are lost. */
  read(number: number): { bytes: Uint8Array; offset: number } | null {
    const source = this.#sourceOf(number);
    return source ? tried(() => this.files.chunk(source.file, number)) : null;
  }

  /**
   * Writes the next generation. `needed`: numbers that snapshots refer to, which are listed in any case. Errors: NO_SPACE, …
   */
  write(generation: number, needed: Iterable<number>, heal: Heal): SalvageResult {
    const numbers = new Numbers();
    for (const some of [this.#listed, this.found, needed]) for (const number of some) numbers.add(number);
    const identities = this.identities();
    const writer = new PackWriter(this.files.ops, this.files.dir, this.number, generation);
    let healedChunks = 0;
    let lostChunks = 0;
    try {
      for (const number of numbers) {
        const identity = identities.of(number);
        const isManifest = this.#manifest.has(number);
        const own = this.read(number);
        const other = !own && identity ? heal(identity.digest) : null;
        if (own || other) {
          const bytes = own?.bytes ?? other!;
          const offset = own?.offset ?? 0;
          const fingerprint = identity?.fingerprint ?? this.#hash(bytes, offset);
          writer.appendNumbered(bytes, offset, fingerprint, isManifest, number, identity?.digest);
          if (!own) healedChunks++;
        } else {
          const { fingerprint, digest } = identity ?? NO_IDENTITY;
          writer.appendLost(number, fingerprint, digest, isManifest);
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

const identityAt = ({ fingerprints, digests }: IdentityLists, position: number): Identity => ({
  fingerprint: fingerprints.subarray(position * 8, position * 8 + 8),
  digest: digests.subarray(position * SHA256_BYTES, (position + 1) * SHA256_BYTES),
});

const identitiesOf = (reader: PackReader): IdentityLists | null => tried(() => reader.readIdentities());

const canRead = (reader: PackReader, frame: number): boolean =>
  tried(() => {
    reader.readFrame(frame, scratch);
    return true;
  }) ?? false;

/** Null where there is damage; the disk may not give again what it has given before. */
function tried<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    if (error instanceof DamageError) return null;
    throw error;
  }
}
