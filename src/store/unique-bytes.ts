/**
 * What deleting each snapshot alone, and then gc, would free: all of them in one pass, where `show` makes a pass for one.
 *
 * Invariants:
 * - A manifest block is read twice at most: for the first snapshot that has it, and for the second.
 * - Memory is 4 bytes for each chunk of the packs that the index lists, whatever a hostile snapshot names.
 * - Other work of this thread runs between two snapshots, and the signal is checked there.
 */
import { setImmediate } from 'node:timers/promises';
import type { Progress } from '../page-stream.js';
import type { StoreContext } from './context.js';
import { DamageError } from './disk/damage.js';
import { storeError } from './disk/layout.js';
import { CHUNK_ENTRY_BYTES, FRAME_ENTRY_BYTES, frameBytes, PACK_CHUNKS } from './pack/pack-format.js';
import type { PackReader } from './pack/pack-reader.js';
import type { PackSet } from './pack/pack-set.js';
import { BLOCK_PAGES } from './snapshot/block-list.js';
import { readPlaces } from './snapshot/manifest.js';
import { readNamed, type SnapshotFile } from './snapshot/snapshot-file.js';

/** In the place of the one snapshot that needs a chunk. */
const SEVERAL = 2 ** 32 - 1;

/**
 * By ID. Null: the snapshot is damaged, so what it needs is not known. Errors: the signal's reason, and those of the
 * system.
 */
export async function uniqueBytesOfAll(
  context: StoreContext,
  signal?: AbortSignal,
  progress?: Progress,
): Promise<Map<string, number | null>> {
  const lock = await context.lock('shared', signal);
  const packs = context.packSet();
  try {
    const owners = new Owners(packs);
    const bytes = new Map<string, number | null>();
    const ids = context.index.ids();
    const sizes: { id: string; bytes: number }[] = [];
    for (const [i, id] of ids.entries()) {
      await setImmediate();
      signal?.throwIfAborted();
      progress?.(i, ids.length);
      try {
        const file = readNamed(context.dir, id);
        owners.addSnapshot(file, sizes.length + 1);
        sizes.push({ id, bytes: file.sizeBytes });
      } catch (error) {
        if (!(error instanceof DamageError)) throw error;
        // Another process may have removed it meanwhile.
        if (context.index.has(id)) bytes.set(id, null);
      }
    }
    for (const number of owners.packs()) {
      await setImmediate();
      signal?.throwIfAborted();
      try {
        for (const [owner, owned] of owners.bytesOf(number, packs.pack(number)))
          sizes[owner - 1]!.bytes += owned;
      } catch (error) {
        if (!(error instanceof DamageError)) throw error;
      }
    }
    for (const { id, bytes: total } of sizes) if (!bytes.has(id)) bytes.set(id, total);
    return bytes;
  } catch (error) {
    throw signal?.aborted ? error : storeError(context.dir, error);
  } finally {
    packs.close();
    lock.release();
  }
}

/** Which snapshot needs a chunk: none, one or several. Snapshots are numbered from 1. */
class Owners {
  readonly #owners = new Map<number, Uint32Array>();
  readonly #places = new Uint32Array(BLOCK_PAGES * 2);

  constructor(readonly packSet: PackSet) {}

  packs(): Iterable<number> {
    return this.#owners.keys();
  }

  /** Returns the owner until now: 0, a number, or SEVERAL. */
  #add(pack: number, chunk: number, owner: number): number {
    if (chunk >= PACK_CHUNKS) return owner;
    let owners = this.#owners.get(pack);
    if (owners === undefined) {
      if (!this.packSet.has(pack)) return owner;
      owners = new Uint32Array(PACK_CHUNKS);
      this.#owners.set(pack, owners);
    }
    const before = owners[chunk]!;
    if (before === 0) owners[chunk] = owner;
    else if (before !== owner) owners[chunk] = SEVERAL;
    return before;
  }

  /** Errors: DAMAGED; then what could be read is added. */
  addSnapshot({ blocks }: SnapshotFile, owner: number): void {
    let damage: unknown = null;
    for (const block of blocks) {
      this.#add(block.fingerprints.pack, block.fingerprints.chunk, owner);
      const before = this.#add(block.places.pack, block.places.chunk, owner);
      // Its pages have this owner, or several, already.
      if (before === owner || before === SEVERAL) continue;
      try {
        readPlaces(this.packSet, block, this.#places);
      } catch (error) {
        damage ??= error;
        continue;
      }
      for (let i = 0; i < BLOCK_PAGES * 2; i += 2)
        if (this.#places[i] !== 0) this.#add(this.#places[i]!, this.#places[i + 1]!, owner);
    }
    if (damage !== null) throw damage;
  }

  /** The bytes of a pack by the one snapshot that needs them, as `bytesOfChunks` counts. */
  bytesOf(pack: number, reader: PackReader): Map<number, number> {
    const owners = this.#owners.get(pack)!;
    const shares = new Map<number, { chunks: number; bytes: number }>();
    for (const frame of reader.frames) {
      const chunkBytes = (frameBytes(frame) + FRAME_ENTRY_BYTES) / frame.chunks + CHUNK_ENTRY_BYTES;
      for (let i = 0; i < frame.chunks; i++) {
        const owner = owners[reader.numbers[frame.first + i]!]!;
        if (owner === 0 || owner === SEVERAL) continue;
        const share = shares.get(owner) ?? { chunks: 0, bytes: 0 };
        share.chunks++;
        share.bytes += chunkBytes;
        shares.set(owner, share);
      }
    }
    return new Map(
      [...shares].map(([owner, { chunks, bytes }]) => [
        owner,
        chunks === reader.numbers.length ? reader.sizeBytes : Math.round(bytes),
      ]),
    );
  }
}
