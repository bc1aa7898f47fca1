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
import { BLOCK_PAGES, FRAME_BYTES, FRAME_CHUNKS, PACK_CHUNKS, PAGE_BYTES } from '../format.js';
import { packFile } from '../layout.js';
import type { ManifestBlock } from '../manifest.js';
import { type BlockEntry, MAX_COPIED_BLOCKS, snapshotFile } from '../snapshot-file.js';
import { type Channel, MessageType, remoteFailed } from './channel.js';
import { ChunkNumbers } from './chunk-numbers.js';
import type { CopyResult, SendOptions } from './copy-result.js';
import type { SnapshotReader } from './snapshot-reader.js';

/** What one message carries: identities, blocks, pairs of a layout. */
export const CHUNKS_PER_MESSAGE = 4096;
export const IDENTITY_BYTES = 40;
export const BLOCKS_PER_MESSAGE = 32;
export const LAYOUT_PER_MESSAGE = 16384;
/** A bit a page of a block. */
export const BLOCK_BITS_BYTES = BLOCK_PAGES / 8;

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
  const json = Buffer.from(JSON.stringify({ description, tag }));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  await channel.send(MessageType.offer, length, json, state);
  const { bytes: have } = await channel.receive(MessageType.have);
  if (have[0] === 1) {
    onPlan({ id, alreadyThere: true, sendChunks: 0, presentChunks: 0 });
    return { id, sentBytes: 0, sentChunks: 0, presentChunks: 0, tagTaken: false };
  }
  const offer = await Offer.of(reader);
  await offer.sendIdentities(channel);
  const { bytes: needed } = await channel.receive(MessageType.need);
  const { size } = offer.chunks;
  if (needed.length !== Math.ceil(size / 8)) throw remoteFailed('asked for chunks that were not offered');
  let sentChunks = 0;
  for (let i = 0; i < size; i++) if (isSet(needed, i)) sentChunks++;
  const presentChunks = size - sentChunks;
  onPlan({ id, alreadyThere: false, sendChunks: sentChunks, presentChunks });
  const totalBytes = sentChunks * PAGE_BYTES;
  progress(0, totalBytes);
  const sentBytes = await offer.sendPages(channel, needed, compress, (doneBytes) =>
    progress(doneBytes, totalBytes),
  );
  await offer.sendBlocks(channel);
  await offer.sendLayout(channel);
  const { bytes: done } = await channel.receive(MessageType.done);
  return { id, sentBytes, sentChunks, presentChunks, tagTaken: done[0] === 1 };
}

const isSet = (bits: Uint8Array, i: number): boolean => (bits[i >>> 3]! & (1 << (i & 7))) !== 0;

/** What the source offers. A block that the snapshot has in many places is read, and sent, as one. */
class Offer {
  readonly chunks = new ChunkNumbers();
  /** By the place of a block's places: its number among those that differ. */
  readonly #numbers = new Map<number, number>();
  /** By that number: an entry of it. */
  readonly #entries: number[] = [];
  /** By chunk: the halves of its fingerprint as its pack lists it, folded. That is enough to find out damage. */
  #folded = new Uint32Array(0);

  private constructor(readonly reader: SnapshotReader) {}

  /** Errors: DAMAGED. */
  static async of(reader: SnapshotReader): Promise<Offer> {
    const offer = new Offer(reader);
    for (let i = 0; i < reader.blocks.length; i++) await offer.#add(i);
    offer.chunks.number();
    return offer;
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
    const message = new Uint8Array(CHUNKS_PER_MESSAGE * IDENTITY_BYTES);
    let filled = 0;
    let number = 0;
    for (const { pack, chunk } of chunks.places()) {
      const identity = (await reader.identities(pack)).of(chunk);
      if (!identity) throw noSuchChunk(pack, chunk);
      message.set(identity.fingerprint, filled);
      message.set(identity.digest, filled + 8);
      const words = new DataView(message.buffer, filled, 8);
      this.#folded[number++] = words.getUint32(0, true) ^ words.getUint32(4, true);
      filled += IDENTITY_BYTES;
      if (filled < message.length) continue;
      await channel.send(MessageType.chunks, message);
      filled = 0;
    }
    if (filled > 0) await channel.send(MessageType.chunks, message.subarray(0, filled));
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

  /** Frames of exactly {@link FRAME_CHUNKS} pages, but for the last. Gives their bytes. */
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
      const head = Uint8Array.of(packedBytes > 0 ? 1 : 0, numbers.length, 0, 0);
      const payload = packedBytes > 0 ? packed.subarray(0, packedBytes) : raw.subarray(0, rawBytes);
      const list = new Uint8Array(Uint32Array.from(numbers).buffer);
      await channel.send(MessageType.pages, head, list, payload);
      sentBytes += payload.length;
      doneBytes += rawBytes;
      sent(doneBytes);
      numbers = [];
    };
    for (const { pack, chunk, number } of this.#wanted(needed)) {
      raw.set(await reader.page(pack, chunk), numbers.length * PAGE_BYTES);
      numbers.push(number);
      if (numbers.length === FRAME_CHUNKS) await flush();
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

  /** A bit a page, and the numbers of their chunks, which must be those that the manifest means. Errors: DAMAGED. */
  #encoded(block: ManifestBlock): [Uint8Array, Uint8Array] {
    const bits = new Uint8Array(BLOCK_BITS_BYTES);
    const numbers: number[] = [];
    for (let page = 0; page < BLOCK_PAGES; page++) {
      if (block.isZero(page)) continue;
      const [pack, chunk] = [block.places[2 * page]!, block.places[2 * page + 1]!];
      const number = this.chunks.of(pack, chunk);
      const folded = (block.fingerprints[2 * page]! ^ block.fingerprints[2 * page + 1]!) >>> 0;
      if (this.#folded[number] !== folded)
        throw new DamageError(packFile(pack, 0), null, `chunk ${chunk} is not the page that was saved`);
      bits[page >>> 3]! |= 1 << (page & 7);
      numbers.push(number);
    }
    return [bits, new Uint8Array(Uint32Array.from(numbers).buffer)];
  }

  async sendLayout(channel: Channel): Promise<void> {
    let region = 0;
    let pairs: number[] = [];
    const flush = async (): Promise<void> => {
      const words = Uint32Array.from([region, ...pairs]);
      if (pairs.length > 0) await channel.send(MessageType.layout, new Uint8Array(words.buffer));
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
