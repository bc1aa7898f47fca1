/**
 * The source end of a copy: offers a snapshot and sends the chunks that the other end lacks (docs/copy.md).
 *
 * Each chunk is offered once, in the order of places, so that packs are read from front to back. Invariant: a page is
 * offered under the identity that its manifest and its pack agree on.
 */
import { pageOps } from '../../native/pages.js';
import { DamageError } from '../damage.js';
import { BLOCK_PAGES, FRAME_BYTES, FRAME_CHUNKS, PACK_CHUNKS, PAGE_BYTES } from '../format.js';
import { packFile } from '../layout.js';
import { type Channel, MessageType, remoteFailed } from './channel.js';
import type { CopyResult, OnPlan } from './copy-result.js';
import type { SnapshotReader } from './snapshot-reader.js';

/** Identities and places that one message carries. */
export const CHUNKS_PER_MESSAGE = 4096;
export const LAYOUT_PER_MESSAGE = 16384;
export const IDENTITY_BYTES = 40;

/** A place as one number: they sort as places do. */
const keyOf = (pack: number, chunk: number): number => pack * PACK_CHUNKS + chunk;

/** Offers the snapshot and sends what is asked for. `compress`: not within one machine. */
export async function sendSnapshot(
  channel: Channel,
  reader: SnapshotReader,
  { compress, onPlan }: { compress: boolean; onPlan: OnPlan },
): Promise<CopyResult> {
  const { description, tag, state } = reader;
  const json = Buffer.from(JSON.stringify({ description, tag }));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  await channel.send(MessageType.offer, length, json, state);
  const { bytes: have } = await channel.receive(MessageType.have);
  if (have[0] === 1) {
    onPlan({ id: description.id, alreadyThere: true, sendChunks: 0, presentChunks: 0 });
    return { id: description.id, sentBytes: 0, sentChunks: 0, presentChunks: 0, tagTaken: false };
  }
  const keys = await distinctPlaces(reader);
  const fingerprints = await offerChunks(channel, reader, keys);
  await offerLayout(channel, reader, keys, fingerprints);
  await channel.send(MessageType.offered);
  const { bytes: needed } = await channel.receive(MessageType.need);
  if (needed.length !== Math.ceil(keys.length / 8))
    throw remoteFailed('asked for chunks that were not offered');
  const wanted: number[] = [];
  for (let i = 0; i < keys.length; i++) if ((needed[i >>> 3]! & (1 << (i & 7))) !== 0) wanted.push(i);
  const presentChunks = keys.length - wanted.length;
  onPlan({ id: description.id, alreadyThere: false, sendChunks: wanted.length, presentChunks });
  const sentBytes = await sendPages(channel, reader, keys, wanted, compress);
  await channel.send(MessageType.sent);
  const { bytes: done } = await channel.receive(MessageType.done);
  return { id: description.id, sentBytes, sentChunks: wanted.length, presentChunks, tagTaken: done[0] === 1 };
}

async function distinctPlaces(reader: SnapshotReader): Promise<Float64Array> {
  let keys = new Float64Array(4096);
  let count = 0;
  for (const entry of reader.blocks) {
    const { places } = await reader.block(entry);
    for (let i = 0; i < 2 * BLOCK_PAGES; i += 2) {
      if (places[i] === 0) continue;
      if (count === keys.length) {
        const grown = new Float64Array(2 * count);
        grown.set(keys);
        keys = grown;
      }
      keys[count++] = keyOf(places[i]!, places[i + 1]!);
    }
  }
  const sorted = keys.subarray(0, count).sort();
  let distinct = 0;
  for (let i = 0; i < count; i++) if (i === 0 || sorted[i] !== sorted[i - 1]) sorted[distinct++] = sorted[i]!;
  return sorted.slice(0, distinct);
}

/** Sends the identities; gives the fingerprints, as pairs of words. */
async function offerChunks(
  channel: Channel,
  reader: SnapshotReader,
  keys: Float64Array,
): Promise<Uint32Array> {
  const fingerprints = new Uint32Array(2 * keys.length);
  const all = new Uint8Array(fingerprints.buffer);
  for (let from = 0; from < keys.length; from += CHUNKS_PER_MESSAGE) {
    const part = keys.subarray(from, from + CHUNKS_PER_MESSAGE);
    const message = new Uint8Array(part.length * IDENTITY_BYTES);
    for (const [i, key] of part.entries()) {
      const pack = Math.floor(key / PACK_CHUNKS);
      const identity = (await reader.identities(pack)).of(key % PACK_CHUNKS);
      if (!identity) throw new DamageError(packFile(pack, 0), null, `there is no chunk ${key % PACK_CHUNKS}`);
      message.set(identity.fingerprint, i * IDENTITY_BYTES);
      message.set(identity.digest, i * IDENTITY_BYTES + 8);
      all.set(identity.fingerprint, 8 * (from + i));
    }
    await channel.send(MessageType.chunks, message);
  }
  return fingerprints;
}

async function offerLayout(
  channel: Channel,
  reader: SnapshotReader,
  keys: Float64Array,
  fingerprints: Uint32Array,
): Promise<void> {
  let region = 0;
  let pairs: number[] = [];
  const flush = async (): Promise<void> => {
    if (pairs.length > 0) {
      const words = Uint32Array.from([region, ...pairs]);
      await channel.send(MessageType.layout, new Uint8Array(words.buffer));
    }
    pairs = [];
  };
  for (const entry of reader.blocks) {
    if (entry.region !== region || pairs.length >= 2 * (LAYOUT_PER_MESSAGE - BLOCK_PAGES)) await flush();
    region = entry.region;
    const block = await reader.block(entry);
    for (let page = 0; page < BLOCK_PAGES; page++) {
      if (block.isZero(page)) continue;
      const [pack, chunk] = [block.places[2 * page]!, block.places[2 * page + 1]!];
      const index = indexOf(keys, keyOf(pack, chunk));
      if (
        fingerprints[2 * index] !== block.fingerprints[2 * page] ||
        fingerprints[2 * index + 1] !== block.fingerprints[2 * page + 1]
      )
        throw new DamageError(packFile(pack, 0), null, `chunk ${chunk} is not the page that was saved`);
      pairs.push(entry.block * BLOCK_PAGES + page, index);
    }
  }
  await flush();
}

function indexOf(keys: Float64Array, key: number): number {
  let low = 0;
  let high = keys.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (keys[middle]! < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

async function sendPages(
  channel: Channel,
  reader: SnapshotReader,
  keys: Float64Array,
  wanted: readonly number[],
  compress: boolean,
): Promise<number> {
  const placeOf = (index: number) => {
    const key = keys[index]!;
    return { pack: Math.floor(key / PACK_CHUNKS), chunk: key % PACK_CHUNKS };
  };
  await reader.expect(wanted.map(placeOf));
  const raw = new Uint8Array(FRAME_BYTES);
  const packed = new Uint8Array(FRAME_BYTES);
  let sentBytes = 0;
  for (let from = 0; from < wanted.length; from += FRAME_CHUNKS) {
    const part = wanted.slice(from, from + FRAME_CHUNKS);
    for (const [i, index] of part.entries()) {
      const { pack, chunk } = placeOf(index);
      raw.set(await reader.page(pack, chunk), i * PAGE_BYTES);
    }
    const rawBytes = part.length * PAGE_BYTES;
    const packedBytes = compress ? pageOps.compress(raw, rawBytes, packed, 0, rawBytes - (rawBytes >> 4)) : 0;
    const head = Uint8Array.of(packedBytes > 0 ? 1 : 0, part.length, 0, 0);
    const payload = packedBytes > 0 ? packed.subarray(0, packedBytes) : raw.subarray(0, rawBytes);
    await channel.send(MessageType.pages, head, new Uint8Array(Uint32Array.from(part).buffer), payload);
    sentBytes += payload.length;
  }
  return sentBytes;
}
