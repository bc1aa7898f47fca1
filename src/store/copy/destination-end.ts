/**
 * The destination end of a copy: looks for what is here already, takes the rest, and commits the snapshot last
 * (docs/copy.md).
 *
 * Invariants: a chunk counts as present only when it was read here and has the SHA-256; what arrives must have the one
 * that was announced; every number from the other side is checked before it is used, and nothing is allocated by it
 * beyond what has arrived, which is held in a few bytes a chunk and a block. What was stored before a cut can be found by
 * the next attempt.
 */
import { hash } from 'node:crypto';
import { pageOps } from '../../native/pages.js';
import type { StoreContext } from '../context.js';
import { BLOCK_PAGES, FRAME_BYTES, FRAME_CHUNKS, PACK_CHUNKS, PAGE_BYTES, SHA256_BYTES } from '../format.js';
import { LOOKS_LIKE_ID, TAG_LABEL } from '../layout.js';
import { ManifestBlock } from '../manifest.js';
import { IsThereError, makeRoom } from '../same-snapshot.js';
import { Save, type SnapshotOrigin } from '../save.js';
import {
  BlockList,
  isDescribable,
  MAX_COPIED_BLOCKS,
  MAX_DESCRIPTION_BYTES,
  MAX_PACK_TOTAL,
  MAX_STATE_BYTES,
  pagesOf,
  requireDescription,
  type SnapshotDescription,
} from '../snapshot-file.js';
import type { Progress, SnapshotMetadata } from '../types.js';
import { type Channel, type Message, MessageType, remoteFailed } from './channel.js';
import type { CopyResult, OnPlan, ReceiveOptions } from './copy-result.js';
import {
  BLOCK_BITS_BYTES,
  BLOCKS_PER_MESSAGE,
  CHUNKS_PER_MESSAGE,
  IDENTITY_BYTES,
  LAYOUT_PER_MESSAGE,
} from './source-end.js';
import { WordList } from './word-list.js';

/** What has arrived is committed each so many pages (32 MiB), so that a cut costs no more than that. */
const CHECKPOINT_PAGES = 8192;
/** A checkpoint makes a pack, whose lock is a descriptor until the end: after so many pages packs are full ones. */
const MANY_PAGES = 64 * CHECKPOINT_PAGES;
/** 256 GiB of distinct pages in one snapshot. */
const MAX_CHUNKS = 1 << 26;
/** What a word has room for. A save holds fewer packs, and those that it writes are fewer still. */
const MAX_PACKS = 2 ** 32 / PACK_CHUNKS;
/** A description and a tag. */
const MAX_OFFER_BYTES = MAX_DESCRIPTION_BYTES + 1024;
/** The fewest bytes of a block: its bits and the number of a chunk. */
const MIN_BLOCK_BYTES = BLOCK_BITS_BYTES + 4;
const BLOCK_BYTES = BLOCK_BITS_BYTES + 4 * BLOCK_PAGES;

/** Places by number, four bytes each: there are few packs. */
class Places {
  readonly #words = new WordList();
  readonly #packs: number[] = [];
  readonly #numbers = new Map<number, number>();

  get length(): number {
    return this.#words.length;
  }

  #encoded(pack: number, chunk: number): number {
    let number = this.#numbers.get(pack);
    if (number === undefined) {
      number = this.#packs.length;
      if (number === MAX_PACKS) throw new Error('a copy cannot refer to so many packs');
      this.#packs.push(pack);
      this.#numbers.set(pack, number);
    }
    return number * PACK_CHUNKS + chunk;
  }

  /** `places`: pairs of pack and chunk. */
  push(places: Uint32Array): void {
    this.#words.push(
      Uint32Array.from({ length: places.length / 2 }, (_, i) =>
        this.#encoded(places[2 * i]!, places[2 * i + 1]!),
      ),
    );
  }

  set(index: number, pack: number, chunk: number): void {
    this.#words.set(index, this.#encoded(pack, chunk));
  }

  pack(index: number): number {
    return this.#packs[Math.floor(this.#words.at(index) / PACK_CHUNKS)]!;
  }

  chunk(index: number): number {
    return this.#words.at(index) % PACK_CHUNKS;
  }
}

/** Which chunks are lacking, and what they must be: a digest over those of each frame of them that will come. */
class Lacking {
  #bits = new Uint8Array(1024);
  readonly #digests = new WordList();
  readonly #frame = Buffer.alloc(FRAME_CHUNKS * SHA256_BYTES);
  #inFrame = 0;
  count = 0;

  /** `number` is above all that were added. */
  add(number: number, digest: Uint8Array): void {
    if (number >>> 3 >= this.#bits.length) {
      const grown = new Uint8Array(2 * (number >>> 3));
      grown.set(this.#bits);
      this.#bits = grown;
    }
    this.#bits[number >>> 3]! |= 1 << (number & 7);
    this.count++;
    this.#frame.set(digest, this.#inFrame++ * SHA256_BYTES);
    if (this.#inFrame === FRAME_CHUNKS) this.end();
  }

  /** Ends a frame; after the last chunk there is one that is not full. */
  end(): void {
    if (this.#inFrame === 0) return;
    const digest = hash('sha256', this.#frame.subarray(0, this.#inFrame * SHA256_BYTES), 'buffer');
    this.#digests.push(new Uint32Array(new Uint8Array(digest).buffer));
    this.#inFrame = 0;
  }

  /** A bit for each of so many chunks. */
  bits(chunks: number): Uint8Array {
    const bits = new Uint8Array(Math.ceil(chunks / 8));
    bits.set(this.#bits.subarray(0, bits.length));
    return bits;
  }

  /** The SHA-256 of the SHA-256s of a frame. */
  digestOf(frame: number): Uint8Array {
    const words = Uint32Array.from({ length: SHA256_BYTES / 4 }, (_, i) =>
      this.#digests.at((frame * SHA256_BYTES) / 4 + i),
    );
    return new Uint8Array(words.buffer);
  }

  /** The number of the first lacking chunk from `number` on; there is one. */
  next(number: number): number {
    while ((this.#bits[number >>> 3]! & (1 << (number & 7))) === 0) number++;
    return number;
  }
}

interface Offer {
  readonly description: SnapshotDescription;
  readonly tag: string | null;
  readonly state: Buffer;
}

function decodeOffer({ bytes }: Message): Offer {
  const length = bytes.length >= 4 ? bytes.readUInt32LE(0) : 0;
  const state = bytes.subarray(4 + length);
  if (4 + length > bytes.length || length > MAX_OFFER_BYTES || state.length > MAX_STATE_BYTES)
    throw remoteFailed('offers a snapshot of a length that cannot be');
  let offer: { description?: { id?: unknown }; tag?: unknown } | null;
  try {
    offer = JSON.parse(bytes.toString('utf8', 4, 4 + length));
  } catch (error) {
    throw remoteFailed('offers something that is no snapshot', error);
  }
  const { description, tag } = offer ?? {};
  if (typeof description?.id !== 'string' || !/^[0-9a-f]{32}$/.test(description.id))
    throw remoteFailed('offers a snapshot without an id');
  const mayBe = typeof tag === 'string' && (TAG_LABEL.test(tag) || LOOKS_LIKE_ID.test(tag));
  if (tag !== null && !mayBe) throw remoteFailed('offers a tag that cannot be');
  let described: SnapshotDescription;
  try {
    described = requireDescription('the offer', description, description.id);
  } catch (error) {
    throw remoteFailed('offers a snapshot that does not make sense', error);
  }
  if (!isDescribable(longest(described)))
    throw remoteFailed('offers a snapshot whose description is too long');
  return { description: described, tag, state };
}

/** What is counted here and not believed takes as many digits as it can. */
const longest = (description: SnapshotDescription): SnapshotDescription => ({
  ...description,
  packBytes: MAX_PACK_TOTAL,
  regions: description.regions.map((region) => ({ ...region, nonZeroPages: pagesOf(region.sizeBytes) })),
});

/** Takes a snapshot that is offered. Errors: REMOTE_FAILED, NO_SPACE, READ_ONLY, STORE_BUSY, … */
export async function receiveSnapshot(
  channel: Channel,
  context: StoreContext,
  { id: wanted = null, onPlan, progress }: ReceiveOptions,
): Promise<CopyResult> {
  const { description, tag, state } = decodeOffer(await channel.receive(MessageType.offer));
  const { id } = description;
  if (wanted !== null && id !== wanted) throw remoteFailed('offers another snapshot than was asked for');
  if (context.index.has(id)) {
    await channel.send(MessageType.have, Uint8Array.of(1));
    onPlan({ id, alreadyThere: true, sendChunks: 0, presentChunks: 0 });
    return { id, sentBytes: 0, sentChunks: 0, presentChunks: 0, tagTaken: false };
  }
  const save = await Save.begin(context, null);
  try {
    return await new Destination(channel, context, save, { description, tag, state }).run(onPlan, progress);
  } catch (error) {
    // What has arrived is of use to the next attempt; if even that cannot be stored, the first error says why.
    await save.checkpoint().catch(() => {});
    await save.suspend();
    throw error;
  }
}

class Destination {
  readonly #places = new Places();
  /** By chunk, pairs of words. */
  readonly #fingerprints = new WordList();
  readonly #lacking = new Lacking();
  /** Blocks as they are stored, of no region; in place of a block's number the last page that is not zero. */
  readonly #blocks = new BlockList();
  #sinceCheckpoint = 0;
  #stored = 0;

  constructor(
    readonly channel: Channel,
    readonly context: StoreContext,
    readonly save: Save,
    readonly offer: Offer,
  ) {}

  async run(onPlan: OnPlan, progress: Progress): Promise<CopyResult> {
    const { channel, save } = this;
    const { description, tag, state } = this.offer;
    const { id } = description;
    await channel.send(MessageType.have, Uint8Array.of(0));
    await this.#takeIdentities();
    const chunks = this.#places.length;
    const sentChunks = this.#lacking.count;
    const presentChunks = chunks - sentChunks;
    onPlan({ id, alreadyThere: false, sendChunks: sentChunks, presentChunks });
    await channel.send(MessageType.need, this.#lacking.bits(chunks));
    const sentBytes = await this.#takePages(progress);
    save.setBlocks(description.regions, await this.#takeBlocks());

    // A tag that looks like an id would stand in for the snapshot of that id.
    const label = tag !== null && LOOKS_LIKE_ID.test(tag) ? null : tag;
    const { kind, vm, memoryBytes, diskBytes, machine, host, parent, createdAt } = description;
    const metadata = { kind, vm, tag: label, memoryBytes, diskBytes, machine, host, state };
    const tagTaken = (await this.#commit(metadata, { id, parent, createdAt })) !== tag;
    await channel.send(MessageType.done, Uint8Array.of(tagTaken ? 1 : 0));
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
    this.#lacking.end();
  }

  async #locate(bytes: Buffer): Promise<void> {
    const count = bytes.length / IDENTITY_BYTES;
    const before = this.#places.length;
    if (!Number.isInteger(count) || count < 1 || count > CHUNKS_PER_MESSAGE || before + count > MAX_CHUNKS)
      throw remoteFailed('offers more chunks than may be');
    const fingerprints = new Uint8Array(8 * count);
    const digests = new Uint8Array(SHA256_BYTES * count);
    for (let i = 0; i < count; i++) {
      fingerprints.set(bytes.subarray(i * IDENTITY_BYTES, i * IDENTITY_BYTES + 8), 8 * i);
      digests.set(bytes.subarray(i * IDENTITY_BYTES + 8, (i + 1) * IDENTITY_BYTES), SHA256_BYTES * i);
    }
    const places = await this.save.locate(fingerprints, digests);
    this.#places.push(places);
    this.#fingerprints.push(new Uint32Array(fingerprints.buffer));
    for (let i = 0; i < count; i++)
      if (places[2 * i] === 0)
        this.#lacking.add(before + i, digests.subarray(SHA256_BYTES * i, SHA256_BYTES * (i + 1)));
  }

  /** Stores what arrives, which must be what is lacking, in that order. */
  async #takePages(progress: Progress): Promise<number> {
    const lacking = this.#lacking;
    const totalBytes = lacking.count * PAGE_BYTES;
    const raw = new Uint8Array(FRAME_BYTES);
    let arrived = 0;
    let number = -1;
    let sentBytes = 0;
    progress(0, totalBytes);
    for (;;) {
      const { type, bytes } = await this.channel.receive(MessageType.pages, MessageType.sent);
      if (type === MessageType.sent) break;
      const count = Math.min(FRAME_CHUNKS, lacking.count - arrived);
      if (count === 0 || bytes[1] !== count || bytes.length < 4 + 4 * count)
        throw remoteFailed('sends pages that were not asked for');
      const numbers: number[] = [];
      for (let i = 0; i < count; i++) {
        number = lacking.next(number + 1);
        if (bytes.readUInt32LE(4 + 4 * i) !== number)
          throw remoteFailed('sends pages that were not asked for');
        numbers.push(number);
      }
      const payload = bytes.subarray(4 + 4 * count);
      unpack(payload, bytes[0]!, raw, count * PAGE_BYTES);
      const { places, fingerprints } = await this.save.arrive(
        raw,
        count,
        lacking.digestOf(arrived / FRAME_CHUNKS),
      );
      numbers.forEach((index, i) => {
        this.#settle(index, places, fingerprints, i);
      });
      arrived += count;
      sentBytes += payload.length;
      progress(arrived * PAGE_BYTES, totalBytes);
      await this.#keep(count);
    }
    if (arrived < lacking.count) throw remoteFailed('has not sent all that is needed');
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
    if (bytes.length > BLOCKS_PER_MESSAGE * BLOCK_BYTES) throw remoteFailed('offers more blocks than may be');
    for (let offset = 0; offset < bytes.length; ) {
      if (found.length === BLOCKS_PER_MESSAGE || bytes.length - offset < MIN_BLOCK_BYTES)
        throw remoteFailed('offers a block that is cut');
      const block = new ManifestBlock();
      offset = this.#decode(bytes, offset, block);
      if (block.lastPage < 0) throw remoteFailed('offers a block of zeros, which is never stored');
      found.push(block);
    }
    if (this.#blocks.length + found.length > MAX_COPIED_BLOCKS)
      throw remoteFailed('offers more blocks than may be');
    const stored = await this.save.storeBlocks(found);
    stored.forEach((entry, i) => {
      this.#blocks.push({ ...entry, block: found[i]!.lastPage });
    });
    await this.#keep(2 * found.length);
  }

  /** Fills in a block from its bits and the numbers of its chunks; gives where it ends. */
  #decode(bytes: Buffer, from: number, block: ManifestBlock): number {
    const chunks = this.#places.length;
    let offset = from + BLOCK_BITS_BYTES;
    for (let page = 0; page < BLOCK_PAGES; page++) {
      if ((bytes[from + (page >>> 3)]! & (1 << (page & 7))) === 0) continue;
      const number = offset + 4 <= bytes.length ? bytes.readUInt32LE(offset) : chunks;
      if (number >= chunks) throw remoteFailed('offers pages that cannot be');
      offset += 4;
      block.places[2 * page] = this.#places.pack(number);
      block.places[2 * page + 1] = this.#places.chunk(number);
      for (let i = 0; i < 2; i++) block.fingerprints[2 * page + i] = this.#fingerprints.at(2 * number + i);
    }
    return offset;
  }

  #takeLayout(bytes: Buffer, list: BlockList): void {
    const words = new Uint32Array(new Uint8Array(bytes).buffer, 0, bytes.length >>> 2);
    const region = words[0] ?? -1;
    const described = this.offer.description.regions[region];
    if (!described || bytes.length % 8 !== 4 || words.length > 1 + 2 * LAYOUT_PER_MESSAGE)
      throw remoteFailed('offers pages of a region that there is not');
    const pages = pagesOf(described.sizeBytes);
    let previous = list.length > 0 ? list.at(list.length - 1) : { region: 0, block: -1 };
    for (let i = 1; i < words.length; i += 2) {
      const [block, number] = [words[i]!, words[i + 1]!];
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

function unpack(payload: Buffer, flags: number, raw: Uint8Array, rawBytes: number): void {
  if (flags === 0 && payload.length === rawBytes) raw.set(payload);
  else if (
    flags !== 1 ||
    payload.length > rawBytes ||
    !pageOps.decompress(payload, 0, payload.length, raw, 0, rawBytes)
  )
    throw remoteFailed('sends pages that cannot be unpacked');
}
