/**
 * Salvage: a damaged pack's next generation, of all that can still be read of it (docs/format.md, "Repair").
 *
 * Invariants: a chunk keeps its number; bytes are taken only from a frame that passed its checksum, or from a chunk of
 * another pack with the same SHA-256; what cannot be had stays listed as lost, with its identity where that is known.
 * The files it reads are not changed.
 */
import type { PageOps } from '../native/pages.js';
import { DamageError } from './damage.js';
import { FRAME_BYTES, FrameFlag, isDigest, PAGE_BYTES, type PackName, SHA256_BYTES } from './format.js';
import { FrameCache, PackReader } from './pack-reader.js';
import { PackWriter, type SealedPack } from './pack-writer.js';

interface Identity {
  readonly fingerprint: Uint8Array;
  readonly digest: Uint8Array;
}

/** Where the bytes of a chunk are. */
interface Found {
  readonly source: number;
  readonly frame: number;
  /** Of the chunk in its frame. */
  readonly offset: number;
}

export interface SalvageResult {
  readonly pack: SealedPack;
  readonly healedChunks: number;
  readonly lostChunks: number;
}

const NO_IDENTITY: Identity = { fingerprint: new Uint8Array(8), digest: new Uint8Array(SHA256_BYTES) };

export class Salvage {
  readonly number: number;
  /** Generations that can be opened at all. */
  readonly #sources: PackReader[] = [];
  readonly #caches: FrameCache[] = [];
  readonly #found = new Map<number, Found>();
  readonly #identities = new Map<number, Identity>();
  readonly #manifest = new Set<number>();
  readonly #scratch = new Uint8Array(FRAME_BYTES);

  /** `names`: the generations of one pack that are on disk, in any condition. Errors: NEWER_FORMAT. */
  constructor(
    readonly ops: PageOps,
    readonly dir: string,
    number: number,
    readonly names: readonly PackName[],
  ) {
    this.number = number;
    for (const name of names) {
      try {
        this.#sources.push(new PackReader(ops, dir, name, { salvage: true }));
        this.#caches.push(new FrameCache(16));
      } catch (error) {
        if (!(error instanceof DamageError)) throw error;
      }
    }
    for (let i = 0; i < this.#sources.length; i++) this.#survey(i);
  }

  /** Whether one of them was ever sealed: else it may be of a save that did not commit. */
  get wasSealed(): boolean {
    return this.#sources.some(({ isSealed }) => isSealed);
  }

  /** Chunks that are listed and cannot be read. */
  get lost(): number[] {
    return [...this.#identities.keys()].filter((number) => !this.#found.has(number));
  }

  get isEmpty(): boolean {
    return this.#found.size === 0 && this.#identities.size === 0;
  }

  digestOf(number: number): Uint8Array | undefined {
    return this.#identities.get(number)?.digest;
  }

  fingerprintOf(number: number): Uint8Array | undefined {
    return this.#identities.get(number)?.fingerprint;
  }

  #survey(index: number): void {
    const source = this.#sources[index]!;
    const identities = identitiesOf(source);
    let frameIndex = -1;
    for (const frame of source.frames) {
      frameIndex++;
      const isReadable = this.#canRead(source, frameIndex);
      for (let i = 0; i < frame.chunks; i++) {
        const position = frame.first + i;
        const number = source.numbers[position]!;
        if ((frame.flags & FrameFlag.manifest) !== 0) this.#manifest.add(number);
        const identity = identities && {
          fingerprint: identities.fingerprints.subarray(position * 8, position * 8 + 8),
          digest: identities.digests.subarray(position * SHA256_BYTES, (position + 1) * SHA256_BYTES),
        };
        // What an earlier one has or lists counts: a later one may be of another store.
        if (this.#found.has(number)) continue;
        if (identity && !isKnown(this.#identities.get(number))) this.#identities.set(number, identity);
        if (!isReadable) continue;
        const page = this.#scratch.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
        const listed = this.#identities.get(number);
        if (!isKnown(listed) || isDigest(page, listed.digest))
          this.#found.set(number, { source: index, frame: frameIndex, offset: i * PAGE_BYTES });
      }
    }
  }

  #canRead(source: PackReader, frame: number): boolean {
    try {
      source.readFrame(frame, this.#scratch);
      return true;
    } catch (error) {
      if (error instanceof DamageError) return false;
      throw error;
    }
  }

  /** The bytes of a chunk, valid until the next call; null when they are lost. */
  read(number: number): { bytes: Uint8Array; offset: number } | null {
    const found = this.#found.get(number);
    if (!found) return null;
    const { source, frame, offset } = found;
    const read = (raw: Uint8Array): void => this.#sources[source]!.readFrame(frame, raw);
    return { bytes: this.#caches[source]!.get(frame, read), offset };
  }

  /** The chunks that can be read, with the SHA-256s that are known. */
  *donors(): Generator<{ number: number; identity: Identity }> {
    for (const number of this.#found.keys()) {
      const identity = this.#identities.get(number);
      if (identity) yield { number, identity };
    }
  }

  /**
   * Writes the next generation. `needed`: numbers that snapshots refer to, which are listed in any case. `heal` gives
   * the bytes of a chunk with this SHA-256, from elsewhere. Errors: NO_SPACE, …
   */
  write(
    generation: number,
    needed: Iterable<number>,
    heal: (digest: Uint8Array) => Uint8Array | null,
  ): SalvageResult {
    const numbers = [...new Set([...this.#found.keys(), ...this.#identities.keys(), ...needed])];
    numbers.sort((a, b) => a - b);
    const writer = new PackWriter(this.ops, this.dir, this.number, generation);
    let healedChunks = 0;
    let lostChunks = 0;
    try {
      for (const number of numbers) {
        const listed = this.#identities.get(number);
        const identity = isKnown(listed) ? listed : undefined;
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
    this.ops.hashPages(bytes.subarray(offset, offset + PAGE_BYTES), 1, fingerprint);
    return fingerprint;
  }

  close(): void {
    for (const source of this.#sources) source.close();
  }
}

function identitiesOf(source: PackReader): { fingerprints: Buffer; digests: Buffer } | null {
  try {
    return source.readIdentities();
  } catch (error) {
    if (error instanceof DamageError) return null;
    throw error;
  }
}

/** Of what was lost with its list too the identity is zeros. */
const isKnown = (identity: Identity | undefined): identity is Identity =>
  identity?.digest.some((byte) => byte !== 0) ?? false;
