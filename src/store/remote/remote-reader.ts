/**
 * Reads a snapshot of a remote that only gives files (remote-files.ts) for the source end. Lists and manifests of packs
 * are fetched once and kept. Pages are fetched when they are sent.
 *
 * Invariant: fetched bytes pass the same checks as the bytes of a local store, before any number in them is used.
 */

import { LivesnapError } from '../../errors.js';
import { pageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { identitiesOf } from '../copy/local-reader.js';
import { RESUME_HINT } from '../copy/protocol.js';
import type { PackIdentities, SnapshotReader } from '../copy/snapshot-reader.js';
import { DamageError } from '../disk/damage.js';
import { packFile } from '../disk/layout.js';
import {
  CHUNK_ENTRY_BYTES,
  decodeFooter,
  FOOTER_BYTES,
  FormatError,
  FrameFlag,
  frameBytes,
  MAX_PACK_BYTES,
  PACK_CHUNKS,
  PACK_HEADER_BYTES,
} from '../pack/pack-format.js';
import { PackReader } from '../pack/pack-reader.js';
import { PackSet } from '../pack/pack-set.js';
import type { BlockEntry, BlockList } from '../snapshot/block-list.js';
import type { SnapshotDescription } from '../snapshot/description.js';
import { errorOfBlock, type ManifestBlock, readBlock } from '../snapshot/manifest.js';
import type { SnapshotFile } from '../snapshot/snapshot-file.js';
import type { RemoteFiles } from './remote-files.js';
import { type PageWindow, RemotePack } from './remote-pack.js';
import type { Spool } from './spool.js';

/** gc rewrites a pack only when a twentieth of it is unreferenced, so no pack reaches this many generations. */
const MAX_GENERATIONS = 256;
/** Wanted frames at most `GAP_BYTES` apart are fetched with one request of about `FETCH_BYTES`. */
const FETCH_BYTES = 4 << 20;
const GAP_BYTES = 64 << 10;

/** Opens remote packs. The caller has fetched the bytes that will be read. */
class RemotePackSet extends PackSet {
  constructor(readonly remote: ReadonlyMap<number, RemotePack>) {
    super(pageOps, '', (number) => remote.get(number)?.generation);
  }

  protected override openPack(number: number): PackReader {
    const bytes = this.remote.get(number)!;
    return new PackReader(pageOps, '', { number, generation: bytes.generation }, { bytes });
  }
}

export class RemoteReader implements SnapshotReader {
  readonly #remote = new Map<number, RemotePack>();
  readonly #packs = new RemotePackSet(this.#remote);
  /** Frames that will be read, ascending, by pack. */
  readonly #wanted = new Map<number, number[]>();
  #identities: { pack: number; of: PackIdentities } | null = null;

  constructor(
    readonly files: RemoteFiles,
    readonly lists: Spool,
    readonly window: PageWindow,
    readonly file: SnapshotFile,
    readonly tags: readonly string[],
  ) {}

  get description(): SnapshotDescription {
    return this.file.description;
  }

  get blocks(): BlockList {
    return this.file.blocks;
  }

  get state(): Uint8Array {
    return this.file.state;
  }

  async block(entry: BlockEntry): Promise<ManifestBlock> {
    try {
      for (const { pack, chunk } of [entry.places, entry.fingerprints])
        await this.#fetchChunk(pack, chunk, true);
    } catch (error) {
      throw errorOfBlock(error, this.description, entry);
    }
    return readBlock(pageOps, this.#packs, this.description, entry);
  }

  async hasChunk(pack: number, chunk: number): Promise<boolean> {
    await this.#find(pack);
    return this.#packs.pack(pack).positionOf(chunk) >= 0;
  }

  async identities(pack: number): Promise<PackIdentities> {
    if (this.#identities?.pack !== pack) {
      await this.#find(pack);
      this.#identities = { pack, of: identitiesOf(this.#packs.pack(pack)) };
    }
    return this.#identities.of;
  }

  async willRead(places: Iterable<{ pack: number; chunk: number }>): Promise<void> {
    for (const { pack, chunk } of places) {
      await this.#find(pack);
      const reader = this.#packs.pack(pack);
      const position = reader.positionOf(chunk);
      if (position < 0) continue;
      const frames = this.#wanted.get(pack) ?? [];
      const frame = reader.frames.indexOf(position);
      if (frames.at(-1) !== frame) frames.push(frame);
      this.#wanted.set(pack, frames);
    }
  }

  async page(pack: number, chunk: number): Promise<Uint8Array> {
    await this.#fetchChunk(pack, chunk, false);
    const { bytes, offset } = this.#packs.chunk(pack, chunk);
    return bytes.subarray(offset, offset + PAGE_BYTES);
  }

  /** Fetches the frame of a chunk, together with near frames that will be read next. */
  async #fetchChunk(number: number, chunk: number, isManifest: boolean): Promise<void> {
    const pack = await this.#find(number);
    const reader = this.#packs.pack(number);
    const position = reader.positionOf(chunk);
    if (position < 0) return;
    const index = reader.frames.indexOf(position);
    const first = reader.frames.at(index);
    let end = first.offset + frameBytes(first);
    if (pack.has(first.offset, end)) return;
    if (pack.wholeOnly) {
      await this.#fetchWhole(pack);
      return;
    }
    const next = isManifest ? following(index, reader.frames.length) : (this.#wanted.get(number) ?? []);
    for (const candidate of next) {
      if (candidate <= index) continue;
      const frame = reader.frames.at(candidate);
      const isNear = frame.offset - end <= GAP_BYTES && frame.offset - first.offset < FETCH_BYTES;
      if (!isNear || (isManifest && (frame.flags & FrameFlag.manifest) === 0)) break;
      if (pack.has(frame.offset, frame.offset + frameBytes(frame))) break;
      end = frame.offset + frameBytes(frame);
    }
    if (isManifest) await this.#fetchToKeep(pack, first.offset, end);
    else {
      this.window.begin(pack, first.offset);
      await this.files.readRange(pack.file, first.offset, end, this.window.append);
      this.window.end();
    }
  }

  /** Finds a pack and fetches its header and lists. Errors: DAMAGED (no generation of it exists). */
  async #find(number: number): Promise<RemotePack> {
    let pack = this.#remote.get(number) ?? null;
    if (pack) return pack;
    for (let generation = 0; !pack && generation < MAX_GENERATIONS; generation++)
      pack = await this.#findGeneration(number, generation);
    if (!pack) throw new DamageError(packFile(number, 0), null, 'the pack is missing');
    this.#remote.set(number, pack);
    if (pack.wholeOnly) this.#keepLists(number, pack);
    return pack;
  }

  async #findGeneration(number: number, generation: number): Promise<RemotePack | null> {
    const file = packFile(number, generation);
    this.window.begin(null, 0);
    const tail = await this.files.readTail(file, FOOTER_BYTES, MAX_PACK_BYTES, this.window.append);
    if (tail === null) return null;
    const { sizeBytes, bytes: footer } = tail;
    if (footer === null) {
      const pack = new RemotePack(file, generation, sizeBytes, true, this.lists, this.window);
      this.window.owner = pack;
      this.window.end();
      return pack;
    }
    if (sizeBytes < PACK_HEADER_BYTES + FOOTER_BYTES)
      throw new DamageError(file, null, `a pack cannot have ${sizeBytes} bytes`);
    let trailerOffset: number;
    try {
      ({ trailerOffset } = decodeFooter(pageOps, footer, { number, generation }, sizeBytes, file));
    } catch (error) {
      if (error instanceof FormatError) throw new DamageError(file, sizeBytes - FOOTER_BYTES, error.message);
      throw error;
    }
    if (sizeBytes - trailerOffset > PACK_CHUNKS * (16 + CHUNK_ENTRY_BYTES) + FOOTER_BYTES)
      throw new DamageError(file, trailerOffset, 'the lists are longer than they can be');
    const pack = new RemotePack(file, generation, sizeBytes, false, this.lists, this.window);
    await this.#fetchToKeep(pack, 0, PACK_HEADER_BYTES);
    await this.#fetchToKeep(pack, trailerOffset, sizeBytes);
    return pack;
  }

  /** For a pack fetched whole: keeps all but its pages, which are fetched again when they are sent. */
  #keepLists(number: number, pack: RemotePack): void {
    const { frames, footer } = this.#packs.pack(number);
    pack.keepFromWindow(0, PACK_HEADER_BYTES);
    pack.keepFromWindow(footer.trailerOffset, pack.sizeBytes);
    let [from, to] = [0, 0];
    for (const frame of frames) {
      if ((frame.flags & FrameFlag.manifest) === 0) continue;
      if (frame.offset !== to) {
        if (to > from) pack.keepFromWindow(from, to);
        from = frame.offset;
      }
      to = frame.offset + frameBytes(frame);
    }
    if (to > from) pack.keepFromWindow(from, to);
  }

  async #fetchWhole(pack: RemotePack): Promise<void> {
    this.window.begin(pack, 0);
    const sizeBytes = await this.files.readWhole(pack.file, MAX_PACK_BYTES, this.window.append);
    if (sizeBytes !== pack.sizeBytes)
      throw new LivesnapError('REMOTE_FAILED', `${this.files.base}${pack.file} changed during the copy`, {
        hint: RESUME_HINT,
      });
    this.window.end();
  }

  async #fetchToKeep(pack: RemotePack, from: number, to: number): Promise<void> {
    const at = this.lists.sizeBytes;
    await this.files.readRange(pack.file, from, to, (part) => this.lists.append(part));
    pack.recordKept(from, at);
  }

  close(): void {
    this.#packs.close();
  }
}

function* following(index: number, count: number): Generator<number> {
  for (let i = index + 1; i < count; i++) yield i;
}
