/**
 * The source end of a copy: offers a snapshot and sends the chunks that the other end lacks (docs/copy.md).
 *
 * Each chunk is offered once, in the order of places, so that packs are read from front to back, and each manifest
 * block that differs is read and sent once, however often the snapshot has it. Invariant: a page is offered under the
 * identity that its manifest and its pack agree on.
 */
import { LivesnapError } from '../../errors.js';
import { pageOps } from '../../native/pages.js';
import { DamageError } from '../damage.js';
import { BLOCK_PAGES, FRAME_BYTES, PACK_CHUNKS, PAGE_BYTES } from '../format.js';
import { packFile } from '../layout.js';
import type { ManifestBlock } from '../manifest.js';
import { type BlockEntry, MAX_COPIED_BLOCKS, snapshotFile } from '../snapshot-file.js';
import type { Channel } from './channel.js';
import { ChunkNumbers } from './chunk-numbers.js';
import type { CopyResult, SendOptions } from './copy-result.js';
import {
  BLOCKS_PER_MESSAGE,
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

/** Offers the snapshot and sends what is asked for. Progress is in bytes of pages, before compression. */
export async function sendSnapshot(
  channel: Channel,
  reader: SnapshotReader,
  { compress, onPlan, progress }: SendOptions,
): Promise<CopyResult> {
  const { description, tag, state } = reader;
  const { id } = description;
  if (reader.blocks.length > MAX_COPIED_BLOCKS)
    throw new LivesnapError('USAGE', `snapshot ${id} has more pages than a copy takes`, {
      hint: `A copy takes ${(MAX_COPIED_BLOCKS * BLOCK_PAGES * PAGE_BYTES) / 2 ** 40} TiB of pages that are not zero.`,
    });
  await channel.send(MessageType.offer, ...encodeOffer({ description, tag, state }));
  if (decodeFlag((await channel.receive(MessageType.have)).bytes)) {
    onPlan({ id, alreadyThere: true, sendChunks: 0, presentChunks: 0 });
    return { id, sentBytes: 0, sentChunks: 0, presentChunks: 0, tagTaken: false };
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
  const tagTaken = decodeFlag((await channel.receive(MessageType.done)).bytes);
  return { id, sentBytes, sentChunks, presentChunks, tagTaken };
}

/** What is sent of a snapshot. A block that the snapshot has in many places is read, and sent, as one. */
class OutgoingSnapshot {
  readonly chunks = new ChunkNumbers();
  /** By the place of a block's places: its number among those that differ. */
  readonly #numbers = new Map<number, number>();
  /** By that number: an entry of it. */
  readonly #entries: number[] = [];
  /** By chunk: the halves of its fingerprint as its pack lists it, folded. That is enough to find out damage. */
  #folded = new Uint32Array(0);

  private constructor(readonly reader: SnapshotReader) {}

  /** Errors: DAMAGED. */
  static async of(reader: SnapshotReader): Promise<OutgoingSnapshot> {
    const outgoing = new OutgoingSnapshot(reader);
    for (let i = 0; i < reader.blocks.length; i++) await outgoing.#add(i);
    outgoing.chunks.number();
    return outgoing;
  }

  async #add(index: number): Promise<void> {
    const { reader, chunks } = this;
    const entry = reader.blocks.at(index);
    const known = this.#numbers.get(keyOf(entry));
    if (known !== undefined) {
      const { digest, nonZeroPages } = reader.blocks.at(this.#entries[known]!);
      if (digest === entry.digest && nonZeroPages === entry.nonZeroPages) return;
      throw new DamageError(snapshotFile(reader.description.id), null, 'a manifest block is listed wrongly');
    }
    const { places } = await reader.block(entry);
    for (let i = 0; i < places.length; i += 2) {
      const [pack, chunk] = [places[i]!, places[i + 1]!];
      if (pack === 0 || (chunk < PACK_CHUNKS && chunks.has(pack, chunk))) continue;
      if (chunk >= PACK_CHUNKS || !(await reader.hasChunk(pack, chunk))) throw noSuchChunk(pack, chunk);
      chunks.add(pack, chunk);
    }
    this.#numbers.set(keyOf(entry), this.#entries.length);
    this.#entries.push(index);
  }

  async sendIdentities(channel: Channel): Promise<void> {
    const { reader, chunks } = this;
    this.#folded = new Uint32Array(chunks.size);
    const list = new IdentityList();
    let number = 0;
    for (const { pack, chunk } of chunks.places()) {
      const identity = (await reader.identities(pack)).of(chunk);
      if (!identity) throw noSuchChunk(pack, chunk);
      list.push(identity.fingerprint, identity.digest);
      const { buffer, byteOffset } = identity.fingerprint;
      const words = new DataView(buffer, byteOffset, 8);
      this.#folded[number++] = words.getUint32(0, true) ^ words.getUint32(4, true);
      if (list.isFull) await channel.send(MessageType.chunks, list.take());
    }
    if (!list.isEmpty) await channel.send(MessageType.chunks, list.take());
    await channel.send(MessageType.offered);
  }

  /** The places of chunks whose bit is set, with their numbers. */
  *#wanted(needed: Uint8Array): Generator<{ pack: number; chunk: number; number: number }> {
    let number = 0;
    for (const { pack, chunk } of this.chunks.places()) {
      if (isSet(needed, number)) yield { pack, chunk, number };
      number++;
    }
  }

  /** Messages of exactly {@link PAGES_PER_MESSAGE} pages, but for the last. Gives the bytes of their payloads. */
  async sendPages(
    channel: Channel,
    needed: Uint8Array,
    compress: boolean,
    sent: (doneBytes: number) => void,
  ): Promise<number> {
    const { reader } = this;
    await reader.expect(this.#wanted(needed));
    const raw = new Uint8Array(FRAME_BYTES);
    const packed = new Uint8Array(FRAME_BYTES);
    let numbers: number[] = [];
    let sentBytes = 0;
    let doneBytes = 0;
    const flush = async (): Promise<void> => {
      const rawBytes = numbers.length * PAGE_BYTES;
      const limit = rawBytes - (rawBytes >> 4);
      const packedBytes = compress ? pageOps.compress(raw, rawBytes, packed, 0, limit) : 0;
      const isCompressed = packedBytes > 0;
      const payload = isCompressed ? packed.subarray(0, packedBytes) : raw.subarray(0, rawBytes);
      await channel.send(MessageType.pages, ...encodePages({ isCompressed, numbers, payload }));
      sentBytes += payload.length;
      doneBytes += rawBytes;
      sent(doneBytes);
      numbers = [];
    };
    for (const { pack, chunk, number } of this.#wanted(needed)) {
      raw.set(await reader.page(pack, chunk), numbers.length * PAGE_BYTES);
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
      parts.push(...this.#encoded(await this.reader.block(this.reader.blocks.at(index))));
      if (parts.length < 2 * BLOCKS_PER_MESSAGE) continue;
      await channel.send(MessageType.blocks, ...parts);
      parts = [];
    }
    if (parts.length > 0) await channel.send(MessageType.blocks, ...parts);
  }

  /** A block as it is sent: its chunks must be those that the manifest means. Errors: DAMAGED. */
  #encoded(block: ManifestBlock): [Uint8Array, Uint8Array] {
    const pages = new Uint32Array(BLOCK_PAGES).fill(ZERO_PAGE);
    for (let page = 0; page < BLOCK_PAGES; page++) {
      if (block.isZero(page)) continue;
      const [pack, chunk] = [block.places[2 * page]!, block.places[2 * page + 1]!];
      const number = this.chunks.of(pack, chunk);
      const folded = (block.fingerprints[2 * page]! ^ block.fingerprints[2 * page + 1]!) >>> 0;
      if (this.#folded[number] !== folded)
        throw new DamageError(packFile(pack, 0), null, `chunk ${chunk} is not the page that was saved`);
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
      pairs.push(entry.block, this.#numbers.get(keyOf(entry))!);
    }
    await flush();
    await channel.send(MessageType.placed);
  }
}

/** A place as one number. */
const keyOf = ({ places: { pack, chunk } }: BlockEntry): number => pack * PACK_CHUNKS + chunk;

const noSuchChunk = (pack: number, chunk: number): DamageError =>
  new DamageError(packFile(pack, 0), null, `there is no chunk ${chunk}`);
