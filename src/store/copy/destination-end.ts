/**
 * The destination end of a copy: finds the chunks that are present, receives the others, and commits the snapshot last
 * (docs/copy.md).
 *
 * Invariants:
 * - A chunk counts as present only when it was read here and has the announced digest, whatever digest its pack lists.
 * - A received page must have the announced digest.
 * - Every number from the source is checked before it is used.
 * - Memory grows with what has arrived: a few bytes per chunk and per block.
 * - What an interrupted copy stored can be found by the next attempt.
 */

import { pageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import type { StoreContext } from '../context.js';
import { LOOKS_LIKE_ID } from '../disk/layout.js';
import { DIGEST_BYTES } from '../pack/digest.js';
import { FRAME_BYTES, PACK_CHUNKS } from '../pack/pack-format.js';
import type { SnapshotOrigin } from '../save/commit.js';
import { makeRoom, SnapshotExistsError } from '../save/room-for-snapshot.js';
import { Save } from '../save/save.js';
import { BLOCK_PAGES, BlockList } from '../snapshot/block-list.js';
import { pagesOf } from '../snapshot/description.js';
import { ManifestBlock } from '../snapshot/manifest.js';
import { MAX_COPIED_BLOCKS } from '../snapshot/snapshot-file.js';
import type { Progress, SnapshotMetadata } from '../types.js';
import type { Channel } from './channel.js';
import { ChunkPlaces } from './chunk-places.js';
import type { CopyResult, OnPlan, ReceiveOptions } from './copy-result.js';
import { MissingChunks } from './missing-chunks.js';
import {
  decodeBlocks,
  decodeChunks,
  decodeLayout,
  decodeOffer,
  decodePages,
  encodeDone,
  encodeFlag,
  MAX_CHUNKS,
  MessageType,
  PAGES_PER_MESSAGE,
  type PageMessage,
  protocolError,
  type ReceivedOffer,
  ZERO_PAGE,
} from './protocol.js';
import { WordList } from './word-list.js';

/** Pages between checkpoints (32 MiB). A killed copy loses only what arrived after the last one. */
const CHECKPOINT_PAGES = 8192;
/**
 * After this many pages (2 GiB) a checkpoint waits for a full pack. Each checkpoint makes a pack, and the lock of each
 * pack is an open descriptor until the copy ends.
 */
const MANY_PAGES = 64 * CHECKPOINT_PAGES;

/** Receives one snapshot. Errors: REMOTE_FAILED, NO_SPACE, READ_ONLY, STORE_BUSY, … */
export async function receiveSnapshot(
  channel: Channel,
  context: StoreContext,
  { id: wanted = null, onPlan, progress }: ReceiveOptions,
): Promise<CopyResult> {
  const offer = decodeOffer((await channel.receive(MessageType.offer)).bytes);
  const { id } = offer.description;
  if (wanted !== null && id !== wanted) throw protocolError(`offered snapshot ${id} instead of ${wanted}`);
  if (context.index.has(id)) {
    await channel.send(MessageType.have, encodeFlag(true));
    onPlan({ id, alreadyThere: true, sendChunks: 0, presentChunks: 0 });
    return { id, sentBytes: 0, sentChunks: 0, presentChunks: 0, skippedTags: [] };
  }
  const save = await Save.begin(context, []);
  try {
    return await new IncomingSnapshot(channel, context, save, offer).run(onPlan, progress);
  } catch (error) {
    // The next attempt can use what has arrived. If even the checkpoint fails, the first error is the cause.
    await save.checkpoint().catch(() => {});
    await save.suspend();
    throw error;
  }
}

class IncomingSnapshot {
  readonly #places = new ChunkPlaces();
  /** Two words per chunk. */
  readonly #fingerprints = new WordList();
  readonly #missing = new MissingChunks();
  /** Stored blocks, not yet of any region. Field `block` holds the last page of the block that is not zero. */
  readonly #blocks = new BlockList();
  #pagesSinceCheckpoint = 0;
  #storedPages = 0;

  constructor(
    readonly channel: Channel,
    readonly context: StoreContext,
    readonly save: Save,
    readonly offer: ReceivedOffer,
  ) {}

  async run(onPlan: OnPlan, progress: Progress): Promise<CopyResult> {
    const { channel, save } = this;
    const { description, tags, state } = this.offer;
    const { id } = description;
    await channel.send(MessageType.have, encodeFlag(false));
    await this.#receiveIdentities();
    const chunks = this.#places.length;
    const sentChunks = this.#missing.count;
    const presentChunks = chunks - sentChunks;
    onPlan({ id, alreadyThere: false, sendChunks: sentChunks, presentChunks });
    await channel.send(MessageType.need, this.#missing.bits(chunks));
    const sentBytes = await this.#receivePages(progress);
    save.setBlocks(description.regions, await this.#receiveBlocks());

    // A tag that looks like an ID would hide the snapshot with that ID.
    const labels = tags.filter((tag) => !LOOKS_LIKE_ID.test(tag));
    const { kind, vm, memoryBytes, diskBytes, machine, host, parent, createdAt } = description;
    const metadata = { kind, vm, tags: labels, memoryBytes, diskBytes, machine, host, state };
    const set = await this.#commit(metadata, { id, parent, createdAt });
    const skipped = new Set(tags.filter((tag) => !set.includes(tag)));
    await channel.send(MessageType.done, encodeDone(this.offer, skipped));
    return { id, sentBytes, sentChunks, presentChunks, skippedTags: [...skipped] };
  }

  /** Returns the tags that the snapshot has afterwards. Errors: STORE_BUSY. */
  async #commit(metadata: SnapshotMetadata, origin: SnapshotOrigin): Promise<readonly string[]> {
    try {
      // Not within the commit: when a commit fails, the received chunks cannot be kept.
      await makeRoom(this.context, origin.id);
      return (await this.save.commit(metadata, origin)).tags;
    } catch (error) {
      if (!(error instanceof SnapshotExistsError)) throw error;
      // Another copy has committed the same snapshot. Nothing of this one is needed.
      await this.save.abort();
      return this.context.index.tagsOf(origin.id);
    }
  }

  async #receiveIdentities(): Promise<void> {
    for (;;) {
      const { type, bytes } = await this.channel.receive(MessageType.chunks, MessageType.offered);
      if (type === MessageType.offered) break;
      await this.#locate(bytes);
    }
    this.#missing.end();
  }

  async #locate(bytes: Buffer): Promise<void> {
    const { count, digestId, fingerprints, digests } = decodeChunks(bytes);
    const before = this.#places.length;
    if (before + count > MAX_CHUNKS) throw protocolError(`offered more than ${MAX_CHUNKS} chunks`);
    const places = await this.save.locate(fingerprints, digests, digestId);
    this.#places.push(places);
    this.#fingerprints.push(new Uint32Array(fingerprints.buffer));
    for (let i = 0; i < count; i++)
      if (places[2 * i] === 0)
        this.#missing.add(before + i, digestId, digests.subarray(DIGEST_BYTES * i, DIGEST_BYTES * (i + 1)));
  }

  /** Receives exactly the missing pages, in ascending order. Returns the bytes of their payloads. */
  async #receivePages(progress: Progress): Promise<number> {
    const missing = this.#missing;
    const totalBytes = missing.count * PAGE_BYTES;
    const raw = new Uint8Array(FRAME_BYTES);
    let stored = 0;
    let number = -1;
    let sentBytes = 0;
    progress(0, totalBytes);
    for (;;) {
      const { type, bytes } = await this.channel.receive(MessageType.pages, MessageType.sent);
      if (type === MessageType.sent) break;
      const message = decodePages(bytes);
      const { numbers, payload } = message;
      const count = Math.min(PAGES_PER_MESSAGE, missing.count - stored);
      if (numbers.length !== count) throw protocolError('sent pages that were not requested');
      for (let i = 0; i < count; i++) {
        number = missing.next(number + 1);
        if (numbers[i] !== number) throw protocolError('sent pages that were not requested');
      }
      unpack(message, raw);
      const { ids, digest } = missing.frame(stored / PAGES_PER_MESSAGE);
      const { places, fingerprints } = await this.save.storeReceived(raw, ids, digest);
      for (let i = 0; i < count; i++) this.#recordStored(numbers[i]!, places, fingerprints, i);
      stored += count;
      sentBytes += payload.length;
      progress(stored * PAGE_BYTES, totalBytes);
      await this.#countStored(count);
    }
    if (stored < missing.count) throw protocolError(`sent ${stored} of ${missing.count} requested pages`);
    return sentBytes;
  }

  /** Records where chunk `number` was stored: entry `from` of what the save returned. */
  #recordStored(number: number, places: Uint32Array, fingerprints: Uint32Array, from: number): void {
    if (places[2 * from] === 0) throw protocolError('sent a page of zeros');
    this.#places.set(number, places[2 * from]!, places[2 * from + 1]!);
    for (let i = 0; i < 2; i++) this.#fingerprints.set(2 * number + i, fingerprints[2 * from + i]!);
  }

  /** Counts stored pages, and makes a checkpoint when one is due. */
  async #countStored(pages: number): Promise<void> {
    this.#storedPages += pages;
    this.#pagesSinceCheckpoint += pages;
    const interval = this.#storedPages > MANY_PAGES ? PACK_CHUNKS : CHECKPOINT_PAGES;
    if (this.#pagesSinceCheckpoint < interval) return;
    this.#pagesSinceCheckpoint = 0;
    await this.save.checkpoint();
  }

  /** Stores the blocks as they arrive. Returns the block list of the snapshot. */
  async #receiveBlocks(): Promise<BlockList> {
    const list = new BlockList();
    const { blocks, layout, placed } = MessageType;
    for (;;) {
      const { type, bytes } = await this.channel.receive(blocks, layout, placed);
      if (type === placed) return list;
      if (type === blocks) await this.#storeBlocks(bytes);
      else this.#addLayout(bytes, list);
    }
  }

  async #storeBlocks(bytes: Buffer): Promise<void> {
    const found: ManifestBlock[] = [];
    for (const pages of decodeBlocks(bytes)) found.push(this.#blockOf(pages));
    if (this.#blocks.length + found.length > MAX_COPIED_BLOCKS)
      throw protocolError(`sent more than ${MAX_COPIED_BLOCKS} blocks`);
    const stored = await this.save.storeBlocks(found);
    stored.forEach((entry, i) => {
      this.#blocks.push({ ...entry, block: found[i]!.lastPage });
    });
    await this.#countStored(2 * found.length);
  }

  /** The manifest block with the places that its chunks have in this store. */
  #blockOf(pages: Uint32Array): ManifestBlock {
    const block = new ManifestBlock();
    for (let page = 0; page < BLOCK_PAGES; page++) {
      const number = pages[page]!;
      if (number === ZERO_PAGE) continue;
      if (number >= this.#places.length)
        throw protocolError(`sent a block with chunk ${number}; it offered ${this.#places.length} chunks`);
      block.places[2 * page] = this.#places.pack(number);
      block.places[2 * page + 1] = this.#places.chunk(number);
      for (let i = 0; i < 2; i++) block.fingerprints[2 * page + i] = this.#fingerprints.at(2 * number + i);
    }
    return block;
  }

  #addLayout(bytes: Buffer, list: BlockList): void {
    const { region, pairs } = decodeLayout(bytes);
    const described = this.offer.description.regions[region];
    if (!described) throw protocolError(`sent a layout of region ${region}, which does not exist`);
    const pages = pagesOf(described.sizeBytes);
    let previous = list.length > 0 ? list.at(list.length - 1) : { region: 0, block: -1 };
    for (let i = 0; i < pairs.length; i += 2) {
      const [block, number] = [pairs[i]!, pairs[i + 1]!];
      if (region < previous.region || (region === previous.region && block <= previous.block))
        throw protocolError('sent a layout that does not ascend');
      if (number >= this.#blocks.length)
        throw protocolError(`sent a layout with block ${number}; it sent ${this.#blocks.length} blocks`);
      if (list.length === MAX_COPIED_BLOCKS)
        throw protocolError(`sent a layout of more than ${MAX_COPIED_BLOCKS} blocks`);
      const stored = this.#blocks.at(number);
      const lastPage = stored.block; // see #blocks
      if (block * BLOCK_PAGES + lastPage >= pages)
        throw protocolError(`sent a page beyond the end of region ${described.name}`);
      previous = { region, block };
      list.push({ ...stored, region, block });
    }
  }
}

function unpack({ isCompressed, numbers, payload }: PageMessage, raw: Uint8Array): void {
  const rawBytes = numbers.length * PAGE_BYTES;
  if (!isCompressed && payload.length === rawBytes) raw.set(payload);
  else if (
    !isCompressed ||
    payload.length > rawBytes ||
    !pageOps.decompress(payload, 0, payload.length, raw, 0, rawBytes)
  )
    throw protocolError(`sent ${numbers.length} pages that cannot be decompressed`);
}
