/**
 * The source end of a copy: offers a snapshot, then sends the chunks that the destination lacks (docs/copy.md).
 *
 * Invariants:
 * - Each distinct chunk is offered once, in the order of places, so packs are read from front to back.
 * - Each distinct manifest block is read and sent once, however often the snapshot refers to it.
 * - The manifest and the pack agree on the identity of every page that is sent.
 */

import { LivesnapError } from '../../errors.js';
import { pageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError } from '../disk/damage.js';
import { packFile } from '../disk/layout.js';
import { FRAME_BYTES, PACK_CHUNKS } from '../pack/pack-format.js';
import { BLOCK_PAGES, type BlockEntry } from '../snapshot/block-list.js';
import { errorOfPage, type ManifestBlock } from '../snapshot/manifest.js';
import { MAX_COPIED_BLOCKS, snapshotFile } from '../snapshot/snapshot-file.js';
import { MAX_TAGS } from '../tags.js';
import type { Channel } from './channel.js';
import { ChunkNumbers } from './chunk-numbers.js';
import type { CopyResult, SendOptions } from './copy-result.js';
import {
  BLOCKS_PER_MESSAGE,
  decodeDone,
  decodeFlag,
  decodeNeed,
  encodeBlock,
  encodeLayout,
  encodeOffer,
  encodePages,
  IdentityList,
  isSet,
  LAYOUT_PER_MESSAGE,
  MessageType,
  PAGES_PER_MESSAGE,
  ZERO_PAGE,
} from './protocol.js';
import type { SnapshotReader } from './snapshot-reader.js';

/** Sends one snapshot. Progress is in bytes of pages, before compression. Errors: USAGE, DAMAGED, REMOTE_FAILED. */
export async function sendSnapshot(
  channel: Channel,
  reader: SnapshotReader,
  options: SendOptions,
): Promise<CopyResult> {
  try {
    return await send(channel, reader, options);
  } catch (error) {
    throw error instanceof DamageError ? error.in(reader.description.id) : error;
  }
}

async function send(
  channel: Channel,
  reader: SnapshotReader,
  { compress, onPlan, progress }: SendOptions,
): Promise<CopyResult> {
  const { description, state } = reader;
  const { id } = description;
  if (reader.blocks.length > MAX_COPIED_BLOCKS)
    throw new LivesnapError('USAGE', `snapshot ${id} is too large to copy`, {
      hint: `The limit is ${(MAX_COPIED_BLOCKS * BLOCK_PAGES * PAGE_BYTES) / 2 ** 40} TiB of pages that are not zero.`,
    });
  const tags = reader.tags.slice(0, MAX_TAGS);
  await channel.send(MessageType.offer, ...encodeOffer({ description, tags, state }));
  if (decodeFlag((await channel.receive(MessageType.have)).bytes)) {
    onPlan({ id, alreadyThere: true, sendChunks: 0, presentChunks: 0 });
    return { id, sentBytes: 0, sentChunks: 0, presentChunks: 0, skippedTags: [] };
  }
  const outgoing = await OutgoingSnapshot.of(reader);
  await outgoing.sendIdentities(channel);
  const { size } = outgoing.chunks;
  const needed = decodeNeed((await channel.receive(MessageType.need)).bytes, size);
  let sentChunks = 0;
  for (let i = 0; i < size; i++) if (isSet(needed, i)) sentChunks++;
  const presentChunks = size - sentChunks;
  onPlan({ id, alreadyThere: false, sendChunks: sentChunks, presentChunks });
  const totalBytes = sentChunks * PAGE_BYTES;
  progress(0, totalBytes);
  const sentBytes = await outgoing.sendPages(channel, needed, compress, (doneBytes) =>
    progress(doneBytes, totalBytes),
  );
  await outgoing.sendBlocks(channel);
  await outgoing.sendLayout(channel);
  const skipped = decodeDone((await channel.receive(MessageType.done)).bytes, tags);
  // A repair may have listed more tags than an offer can have.
  const skippedTags = [...skipped, ...reader.tags.slice(MAX_TAGS)];
  return { id, sentBytes, sentChunks, presentChunks, skippedTags };
}

/** The distinct chunks and manifest blocks of a snapshot, and how they are sent. */
class OutgoingSnapshot {
  readonly chunks = new ChunkNumbers();
  /** The number of each distinct block, by the place of the chunk that holds its places. */
  readonly #blockNumbers = new Map<number, number>();
  /** By block number: the index in `reader.blocks` of one entry of the block. */
  readonly #entries: number[] = [];
  /** By chunk number: the two halves of the fingerprint in its pack, XORed. Enough to detect damage. */
  #folded = new Uint32Array(0);

  private constructor(readonly reader: SnapshotReader) {}

  /** Errors: DAMAGED. */
  static async of(reader: SnapshotReader): Promise<OutgoingSnapshot> {
    const outgoing = new OutgoingSnapshot(reader);
    for (let i = 0; i < reader.blocks.length; i++) await outgoing.#addBlock(i);
    outgoing.chunks.number();
    return outgoing;
  }

  async #addBlock(index: number): Promise<void> {
    const { reader, chunks } = this;
    const entry = reader.blocks.at(index);
    const known = this.#blockNumbers.get(keyOf(entry));
    if (known !== undefined) {
      const { digest, nonZeroPages } = reader.blocks.at(this.#entries[known]!);
      if (digest === entry.digest && nonZeroPages === entry.nonZeroPages) return;
      throw new DamageError(
        snapshotFile(reader.description.id),
        null,
        'two entries of one manifest block differ',
      );
    }
    const { places } = await reader.block(entry);
    for (let page = 0; page < BLOCK_PAGES; page++) {
      const [pack, chunk] = [places[2 * page]!, places[2 * page + 1]!];
      if (pack === 0 || (chunk < PACK_CHUNKS && chunks.has(pack, chunk))) continue;
      try {
        if (chunk >= PACK_CHUNKS || !(await reader.hasChunk(pack, chunk))) throw noSuchChunk(pack, chunk);
      } catch (error) {
        throw errorOfPage(error, reader.description, entry, page);
      }
      chunks.add(pack, chunk);
    }
    this.#blockNumbers.set(keyOf(entry), this.#entries.length);
    this.#entries.push(index);
  }

  async sendIdentities(channel: Channel): Promise<void> {
    const { reader, chunks } = this;
    this.#folded = new Uint32Array(chunks.size);
    const list = new IdentityList();
    let number = 0;
    for (const { pack, chunk } of chunks.places()) {
      const { digestId, fingerprint, digest } = await this.#named(pack, chunk, async () => {
        const identities = await reader.identities(pack);
        const found = identities.of(chunk);
        if (!found) throw noSuchChunk(pack, chunk);
        return { ...found, digestId: identities.digestId };
      });
      if (list.isFullFor(digestId)) await channel.send(MessageType.chunks, list.take());
      list.push(digestId, fingerprint, digest);
      const { buffer, byteOffset } = fingerprint;
      const words = new DataView(buffer, byteOffset, 8);
      this.#folded[number++] = words.getUint32(0, true) ^ words.getUint32(4, true);
    }
    if (!list.isEmpty) await channel.send(MessageType.chunks, list.take());
    await channel.send(MessageType.offered);
  }

  /** Reads a chunk. Damage names the first page that the chunk holds: the blocks are read again to find it. */
  async #named<T>(pack: number, chunk: number, read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
      const { description, blocks } = this.reader;
      for (const index of this.#entries) {
        const entry = blocks.at(index);
        const { places } = await this.reader.block(entry);
        for (let page = 0; page < BLOCK_PAGES; page++)
          if (places[2 * page] === pack && places[2 * page + 1] === chunk)
            throw errorOfPage(error, description, entry, page);
      }
      throw error;
    }
  }

  /** The places and numbers of the chunks whose bit is set. */
  *#needed(needed: Uint8Array): Generator<{ pack: number; chunk: number; number: number }> {
    let number = 0;
    for (const { pack, chunk } of this.chunks.places()) {
      if (isSet(needed, number)) yield { pack, chunk, number };
      number++;
    }
  }

  /** Every message but the last has {@link PAGES_PER_MESSAGE} pages. Returns the bytes of the payloads. */
  async sendPages(
    channel: Channel,
    needed: Uint8Array,
    compress: boolean,
    onSent: (doneBytes: number) => void,
  ): Promise<number> {
    const { reader } = this;
    await reader.willRead(this.#needed(needed));
    const raw = new Uint8Array(FRAME_BYTES);
    const packed = new Uint8Array(FRAME_BYTES);
    let numbers: number[] = [];
    let sentBytes = 0;
    let doneBytes = 0;
    const flush = async (): Promise<void> => {
      const rawBytes = numbers.length * PAGE_BYTES;
      // Pages that LZ4 shortens by less than a sixteenth are sent as they are.
      const limit = rawBytes - (rawBytes >> 4);
      const packedBytes = compress ? pageOps.compress(raw, rawBytes, packed, 0, limit) : 0;
      const isCompressed = packedBytes > 0;
      const payload = isCompressed ? packed.subarray(0, packedBytes) : raw.subarray(0, rawBytes);
      await channel.send(MessageType.pages, ...encodePages({ isCompressed, numbers, payload }));
      sentBytes += payload.length;
      doneBytes += rawBytes;
      onSent(doneBytes);
      numbers = [];
    };
    for (const { pack, chunk, number } of this.#needed(needed)) {
      const page = await this.#named(pack, chunk, () => reader.page(pack, chunk));
      raw.set(page, numbers.length * PAGE_BYTES);
      numbers.push(number);
      if (numbers.length === PAGES_PER_MESSAGE) await flush();
    }
    if (numbers.length > 0) await flush();
    await channel.send(MessageType.sent);
    return sentBytes;
  }

  async sendBlocks(channel: Channel): Promise<void> {
    let parts: Uint8Array[] = [];
    for (const index of this.#entries) {
      const entry = this.reader.blocks.at(index);
      parts.push(...this.#encode(entry, await this.reader.block(entry)));
      if (parts.length < 2 * BLOCKS_PER_MESSAGE) continue;
      await channel.send(MessageType.blocks, ...parts);
      parts = [];
    }
    if (parts.length > 0) await channel.send(MessageType.blocks, ...parts);
  }

  /** Checks the fingerprints of a block against those of the packs, and encodes it. Errors: DAMAGED. */
  #encode(entry: BlockEntry, block: ManifestBlock): [Uint8Array, Uint8Array] {
    const pages = new Uint32Array(BLOCK_PAGES).fill(ZERO_PAGE);
    for (let page = 0; page < BLOCK_PAGES; page++) {
      if (block.isZero(page)) continue;
      const [pack, chunk] = [block.places[2 * page]!, block.places[2 * page + 1]!];
      const number = this.chunks.of(pack, chunk);
      const folded = (block.fingerprints[2 * page]! ^ block.fingerprints[2 * page + 1]!) >>> 0;
      if (this.#folded[number] !== folded) {
        const damage = new DamageError(
          packFile(pack, 0),
          null,
          `chunk ${chunk} is not the page that was saved`,
        );
        throw errorOfPage(damage, this.reader.description, entry, page);
      }
      pages[page] = number;
    }
    return encodeBlock(pages);
  }

  async sendLayout(channel: Channel): Promise<void> {
    let region = 0;
    let pairs: number[] = [];
    const flush = async (): Promise<void> => {
      if (pairs.length > 0) await channel.send(MessageType.layout, encodeLayout({ region, pairs }));
      pairs = [];
    };
    for (const entry of this.reader.blocks) {
      if (entry.region !== region || pairs.length === 2 * LAYOUT_PER_MESSAGE) await flush();
      region = entry.region;
      pairs.push(entry.block, this.#blockNumbers.get(keyOf(entry))!);
    }
    await flush();
    await channel.send(MessageType.placed);
  }
}

/** The place of the chunk that holds a block's places, as one number. */
const keyOf = ({ places: { pack, chunk } }: BlockEntry): number => pack * PACK_CHUNKS + chunk;

const noSuchChunk = (pack: number, chunk: number): DamageError =>
  new DamageError(packFile(pack, 0), null, `there is no chunk ${chunk}`);
