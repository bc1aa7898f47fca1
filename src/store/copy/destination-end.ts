/**
 * The destination end of a copy: looks for what is here already, takes the rest, and commits the snapshot last
 * (docs/copy.md).
 *
 * Invariants: a chunk counts as present only when it was read here and has the SHA-256; what arrives must have the one
 * that was announced; every number from the other side is checked before it is used, and nothing is allocated by it
 * beyond what has arrived, which is held in a few bytes a chunk and a block. What was stored before a cut can be found by
 * the next attempt.
 */
import { pageOps } from '../../native/pages.js';
import type { StoreContext } from '../context.js';
import { BLOCK_PAGES, FRAME_BYTES, PACK_CHUNKS, PAGE_BYTES, SHA256_BYTES } from '../format.js';
import { LOOKS_LIKE_ID } from '../layout.js';
import { ManifestBlock } from '../manifest.js';
import { IsThereError, makeRoom } from '../same-snapshot.js';
import { Save, type SnapshotOrigin } from '../save.js';
import { BlockList, MAX_COPIED_BLOCKS, pagesOf } from '../snapshot-file.js';
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
  encodeFlag,
  MAX_CHUNKS,
  MessageType,
  PAGES_PER_MESSAGE,
  type PageMessage,
  remoteFailed,
  type SnapshotOffer,
  ZERO_PAGE,
} from './protocol.js';
import { WordList } from './word-list.js';

/** What has arrived is committed each so many pages (32 MiB), so that a cut costs no more than that. */
const CHECKPOINT_PAGES = 8192;
/** A checkpoint makes a pack, whose lock is a descriptor until the end: after so many pages packs are full ones. */
const MANY_PAGES = 64 * CHECKPOINT_PAGES;
/** Takes a snapshot that is offered. Errors: REMOTE_FAILED, NO_SPACE, READ_ONLY, STORE_BUSY, … */
export async function receiveSnapshot(
  channel: Channel,
  context: StoreContext,
  { id: wanted = null, onPlan, progress }: ReceiveOptions,
): Promise<CopyResult> {
  const offer = decodeOffer((await channel.receive(MessageType.offer)).bytes);
  const { id } = offer.description;
  if (wanted !== null && id !== wanted) throw remoteFailed('offers another snapshot than was asked for');
  if (context.index.has(id)) {
    await channel.send(MessageType.have, encodeFlag(true));
    onPlan({ id, alreadyThere: true, sendChunks: 0, presentChunks: 0 });
    return { id, sentBytes: 0, sentChunks: 0, presentChunks: 0, tagTaken: false };
  }
  const save = await Save.begin(context, null);
  try {
    return await new IncomingSnapshot(channel, context, save, offer).run(onPlan, progress);
  } catch (error) {
    // What has arrived is of use to the next attempt; if even that cannot be stored, the first error says why.
    await save.checkpoint().catch(() => {});
    await save.suspend();
    throw error;
  }
}

class IncomingSnapshot {
  readonly #places = new ChunkPlaces();
  /** By chunk, pairs of words. */
  readonly #fingerprints = new WordList();
  readonly #missing = new MissingChunks();
  /** Blocks as they are stored, of no region; in place of a block's number the last page that is not zero. */
  readonly #blocks = new BlockList();
  #sinceCheckpoint = 0;
  #stored = 0;

  constructor(
    readonly channel: Channel,
    readonly context: StoreContext,
    readonly save: Save,
    readonly offer: SnapshotOffer,
  ) {}

  async run(onPlan: OnPlan, progress: Progress): Promise<CopyResult> {
    const { channel, save } = this;
    const { description, tag, state } = this.offer;
    const { id } = description;
    await channel.send(MessageType.have, encodeFlag(false));
    await this.#takeIdentities();
    const chunks = this.#places.length;
    const sentChunks = this.#missing.count;
    const presentChunks = chunks - sentChunks;
    onPlan({ id, alreadyThere: false, sendChunks: sentChunks, presentChunks });
    await channel.send(MessageType.need, this.#missing.bits(chunks));
    const sentBytes = await this.#takePages(progress);
    save.setBlocks(description.regions, await this.#takeBlocks());

    // A tag that looks like an id would stand in for the snapshot of that id.
    const label = tag !== null && LOOKS_LIKE_ID.test(tag) ? null : tag;
    const { kind, vm, memoryBytes, diskBytes, machine, host, parent, createdAt } = description;
    const metadata = { kind, vm, tag: label, memoryBytes, diskBytes, machine, host, state };
    const tagTaken = (await this.#commit(metadata, { id, parent, createdAt })) !== tag;
    await channel.send(MessageType.done, encodeFlag(tagTaken));
    return { id, sentBytes, sentChunks, presentChunks, tagTaken };
  }

  /** Gives the tag if the snapshot has it now. Errors: STORE_BUSY. */
  async #commit(metadata: SnapshotMetadata, origin: SnapshotOrigin): Promise<string | null> {
    try {
      // Before the save is brought to its end: when there is no room, what has arrived can still be kept.
      await makeRoom(this.context, origin.id);
      return (await this.save.commit(metadata, origin)).tag;
    } catch (error) {
      if (!(error instanceof IsThereError)) throw error;
      // Another copy has brought the snapshot meanwhile, and nothing of this one is needed.
      await this.save.abort();
      const { tag } = metadata;
      return tag !== null && this.context.index.taggedAs(tag) === origin.id ? tag : null;
    }
  }

  async #takeIdentities(): Promise<void> {
    for (;;) {
      const { type, bytes } = await this.channel.receive(MessageType.chunks, MessageType.offered);
      if (type === MessageType.offered) break;
      await this.#locate(bytes);
    }
    this.#missing.end();
  }

  async #locate(bytes: Buffer): Promise<void> {
    const { count, fingerprints, digests } = decodeChunks(bytes);
    const before = this.#places.length;
    if (before + count > MAX_CHUNKS) throw remoteFailed('offers more chunks than may be');
    const places = await this.save.locate(fingerprints, digests);
    this.#places.push(places);
    this.#fingerprints.push(new Uint32Array(fingerprints.buffer));
    for (let i = 0; i < count; i++)
      if (places[2 * i] === 0)
        this.#missing.add(before + i, digests.subarray(SHA256_BYTES * i, SHA256_BYTES * (i + 1)));
  }

  /** Stores what arrives, which must be what is lacking, in that order. */
  async #takePages(progress: Progress): Promise<number> {
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
      if (numbers.length !== count) throw remoteFailed('sends pages that were not asked for');
      for (let i = 0; i < count; i++) {
        number = missing.next(number + 1);
        if (numbers[i] !== number) throw remoteFailed('sends pages that were not asked for');
      }
      unpack(message, raw);
      const digest = missing.digestOf(stored / PAGES_PER_MESSAGE);
      const { places, fingerprints } = await this.save.storeReceived(raw, count, digest);
      for (let i = 0; i < count; i++) this.#settle(numbers[i]!, places, fingerprints, i);
      stored += count;
      sentBytes += payload.length;
      progress(stored * PAGE_BYTES, totalBytes);
      await this.#keep(count);
    }
    if (stored < missing.count) throw remoteFailed('has not sent all that is needed');
    return sentBytes;
  }

  #settle(index: number, places: Uint32Array, fingerprints: Uint32Array, from: number): void {
    if (places[2 * from] === 0) throw remoteFailed('sends a page of zeros, which is never stored');
    this.#places.set(index, places[2 * from]!, places[2 * from + 1]!);
    for (let i = 0; i < 2; i++) this.#fingerprints.set(2 * index + i, fingerprints[2 * from + i]!);
  }

  /** So many pages more have been stored: now and then they are committed. */
  async #keep(pages: number): Promise<void> {
    this.#stored += pages;
    this.#sinceCheckpoint += pages;
    if (this.#sinceCheckpoint < (this.#stored > MANY_PAGES ? PACK_CHUNKS : CHECKPOINT_PAGES)) return;
    this.#sinceCheckpoint = 0;
    await this.save.checkpoint();
  }

  /** Stores the blocks as they come; gives what the snapshot's file lists. */
  async #takeBlocks(): Promise<BlockList> {
    const list = new BlockList();
    const { blocks, layout, placed } = MessageType;
    for (;;) {
      const { type, bytes } = await this.channel.receive(blocks, layout, placed);
      if (type === placed) return list;
      if (type === blocks) await this.#storeBlocks(bytes);
      else this.#takeLayout(bytes, list);
    }
  }

  async #storeBlocks(bytes: Buffer): Promise<void> {
    const found: ManifestBlock[] = [];
    for (const pages of decodeBlocks(bytes)) found.push(this.#blockOf(pages));
    if (this.#blocks.length + found.length > MAX_COPIED_BLOCKS)
      throw remoteFailed('offers more blocks than may be');
    const stored = await this.save.storeBlocks(found);
    stored.forEach((entry, i) => {
      this.#blocks.push({ ...entry, block: found[i]!.lastPage });
    });
    await this.#keep(2 * found.length);
  }

  /** A block of the places that its chunks have here. */
  #blockOf(pages: Uint32Array): ManifestBlock {
    const block = new ManifestBlock();
    for (let page = 0; page < BLOCK_PAGES; page++) {
      const number = pages[page]!;
      if (number === ZERO_PAGE) continue;
      if (number >= this.#places.length) throw remoteFailed('offers pages that cannot be');
      block.places[2 * page] = this.#places.pack(number);
      block.places[2 * page + 1] = this.#places.chunk(number);
      for (let i = 0; i < 2; i++) block.fingerprints[2 * page + i] = this.#fingerprints.at(2 * number + i);
    }
    return block;
  }

  #takeLayout(bytes: Buffer, list: BlockList): void {
    const { region, pairs } = decodeLayout(bytes);
    const described = this.offer.description.regions[region];
    if (!described) throw remoteFailed('offers pages of a region that there is not');
    const pages = pagesOf(described.sizeBytes);
    let previous = list.length > 0 ? list.at(list.length - 1) : { region: 0, block: -1 };
    for (let i = 0; i < pairs.length; i += 2) {
      const [block, number] = [pairs[i]!, pairs[i + 1]!];
      if (
        region < previous.region ||
        (region === previous.region && block <= previous.block) ||
        number >= this.#blocks.length ||
        list.length === MAX_COPIED_BLOCKS
      )
        throw remoteFailed('offers pages that cannot be');
      const stored = this.#blocks.at(number);
      // Here `block` of what is stored is its last page.
      if (block * BLOCK_PAGES + stored.block >= pages) throw remoteFailed('offers pages that cannot be');
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
    throw remoteFailed('sends pages that cannot be unpacked');
}
