/**
 * The destination end of a copy: looks for what is here already, takes the rest, and commits the snapshot last
 * (docs/copy.md).
 *
 * Invariants: a chunk counts as present only when it was read here and has the SHA-256; what arrives must have the one
 * that was announced; every number from the other side is checked before it is used, and nothing is allocated by it
 * beyond what has arrived. What was stored before a cut can be found by the next attempt.
 */
import { pageOps } from '../../native/pages.js';
import type { StoreContext } from '../context.js';
import { FRAME_BYTES, FRAME_CHUNKS, PAGE_BYTES } from '../format.js';
import { LOOKS_LIKE_ID, TAG_LABEL } from '../layout.js';
import { IsThereError, makeRoom } from '../same-snapshot.js';
import { Save, type SnapshotOrigin } from '../save.js';
import { MAX_STATE_BYTES, pagesOf, parseDescription, type SnapshotDescription } from '../snapshot-file.js';
import type { Progress, SnapshotMetadata } from '../types.js';
import { type Channel, type Message, MessageType, remoteFailed } from './channel.js';
import type { CopyResult, OnPlan, ReceiveOptions } from './copy-result.js';
import { CHUNKS_PER_MESSAGE, IDENTITY_BYTES, LAYOUT_PER_MESSAGE } from './source-end.js';

/** What has arrived is committed each so many pages (32 MiB), so that a cut costs no more than that. */
const CHECKPOINT_PAGES = 8192;
/** 256 GiB of distinct pages in one snapshot. */
const MAX_CHUNKS = 1 << 26;
/** Pages that are placed at once. */
const PLACE_PAGES = 256;

/** A growing list of 32-bit words. */
class Words {
  #words = new Uint32Array(1024);
  length = 0;

  push(more: Uint32Array): void {
    if (this.length + more.length > this.#words.length) {
      const grown = new Uint32Array(Math.max(2 * this.#words.length, this.length + more.length));
      grown.set(this.#words.subarray(0, this.length));
      this.#words = grown;
    }
    this.#words.set(more, this.length);
    this.length += more.length;
  }

  get all(): Uint32Array {
    return this.#words.subarray(0, this.length);
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
  if (4 + length > bytes.length || state.length > MAX_STATE_BYTES)
    throw remoteFailed('offers a snapshot of a length that cannot be');
  let offer: { description?: { id?: unknown }; tag?: unknown };
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
  try {
    const json = Buffer.from(JSON.stringify(description));
    return { description: parseDescription('the offer', json, description.id), tag, state };
  } catch (error) {
    throw remoteFailed('offers a snapshot that does not make sense', error);
  }
}

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
    await save.abort();
    throw error;
  }
}

class Destination {
  readonly #places = new Words();
  readonly #fingerprints = new Words();
  /** Page and chunk, pairs, a list a region. */
  readonly #layout: Words[];
  /** Chunks that are not here, ascending, and their SHA-256s. */
  readonly #needed = new Words();
  readonly #neededDigests: Uint8Array[] = [];

  constructor(
    readonly channel: Channel,
    readonly context: StoreContext,
    readonly save: Save,
    readonly offer: Offer,
  ) {
    this.#layout = offer.description.regions.map(() => new Words());
  }

  async run(onPlan: OnPlan, progress: Progress): Promise<CopyResult> {
    const { channel, save } = this;
    const { description, tag, state } = this.offer;
    const { id } = description;
    await channel.send(MessageType.have, Uint8Array.of(0));
    await this.#takeOffer();
    const chunks = this.#places.length / 2;
    const sentChunks = this.#needed.length;
    const presentChunks = chunks - sentChunks;
    onPlan({ id, alreadyThere: false, sendChunks: sentChunks, presentChunks });
    const wanted = new Uint8Array(Math.ceil(chunks / 8));
    for (const index of this.#needed.all) wanted[index >>> 3]! |= 1 << (index & 7);
    await channel.send(MessageType.need, wanted);
    const sentBytes = await this.#takePages(progress);

    save.setRegions(description.regions);
    for (const [region, layout] of this.#layout.entries()) this.#place(region, layout.all);
    const tagTaken = tag !== null && !this.#isFree(tag);
    const { kind, vm, memoryBytes, diskBytes, machine, host, parent, createdAt } = description;
    const metadata = { kind, vm, tag: tagTaken ? null : tag, memoryBytes, diskBytes, machine, host, state };
    const isFirst = await this.#commit(metadata, { id, parent, createdAt });
    const leftBehind = isFirst ? tagTaken : tag !== null && this.context.index.taggedAs(tag) !== id;
    await channel.send(MessageType.done, Uint8Array.of(leftBehind ? 1 : 0));
    return { id, sentBytes, sentChunks, presentChunks, tagTaken: leftBehind };
  }

  /** False: another copy has brought the snapshot meanwhile, and nothing of this one is needed. Errors: STORE_BUSY. */
  async #commit(metadata: SnapshotMetadata, origin: SnapshotOrigin): Promise<boolean> {
    try {
      // Before the save is brought to its end: when there is no room, what has arrived can still be kept.
      await makeRoom(this.context, origin.id);
      await this.save.commit(metadata, origin);
      return true;
    } catch (error) {
      if (!(error instanceof IsThereError)) throw error;
      await this.save.abort();
      return false;
    }
  }

  /** A tag that looks like an id would stand in for the snapshot of that id. */
  #isFree(tag: string): boolean {
    return !LOOKS_LIKE_ID.test(tag) && this.context.index.taggedAs(tag) === undefined;
  }

  async #takeOffer(): Promise<void> {
    const { chunks, layout, offered } = MessageType;
    for (;;) {
      const message = await this.channel.receive(chunks, layout, offered);
      if (message.type === offered) return;
      if (message.type === chunks) await this.#takeIdentities(message.bytes);
      else this.#takeLayout(message.bytes);
    }
  }

  async #takeIdentities(bytes: Buffer): Promise<void> {
    const count = bytes.length / IDENTITY_BYTES;
    const before = this.#places.length / 2;
    if (!Number.isInteger(count) || count < 1 || count > CHUNKS_PER_MESSAGE || before + count > MAX_CHUNKS)
      throw remoteFailed('offers more chunks than may be');
    const fingerprints = new Uint8Array(8 * count);
    const digests = new Uint8Array(32 * count);
    for (let i = 0; i < count; i++) {
      fingerprints.set(bytes.subarray(i * IDENTITY_BYTES, i * IDENTITY_BYTES + 8), 8 * i);
      digests.set(bytes.subarray(i * IDENTITY_BYTES + 8, (i + 1) * IDENTITY_BYTES), 32 * i);
    }
    const places = await this.save.locate(fingerprints, digests);
    this.#places.push(places);
    this.#fingerprints.push(new Uint32Array(fingerprints.buffer));
    for (let i = 0; i < count; i++) {
      if (places[2 * i] !== 0) continue;
      this.#needed.push(Uint32Array.of(before + i));
      this.#neededDigests.push(digests.slice(32 * i, 32 * i + 32));
    }
  }

  #takeLayout(bytes: Buffer): void {
    const words = new Uint32Array(new Uint8Array(bytes).buffer, 0, bytes.length >>> 2);
    const region = words[0] ?? -1;
    const described = this.offer.description.regions[region];
    const layout = this.#layout[region];
    const pairs = words.subarray(1);
    if (!described || !layout || bytes.length % 8 !== 4 || pairs.length > 2 * LAYOUT_PER_MESSAGE)
      throw remoteFailed('offers pages of a region that there is not');
    const chunks = this.#places.length / 2;
    const pages = pagesOf(described.sizeBytes);
    let previous = layout.length > 0 ? layout.all[layout.length - 2]! : -1;
    for (let i = 0; i < pairs.length; i += 2) {
      if (pairs[i]! <= previous || pairs[i]! >= pages || pairs[i + 1]! >= chunks)
        throw remoteFailed('offers pages that cannot be');
      previous = pairs[i]!;
    }
    layout.push(pairs);
  }

  /** Stores what arrives, which must be what is needed, in that order. */
  async #takePages(progress: Progress): Promise<number> {
    const needed = this.#needed.all;
    const totalBytes = needed.length * PAGE_BYTES;
    const raw = new Uint8Array(FRAME_BYTES);
    let arrived = 0;
    let sentBytes = 0;
    let sinceCheckpoint = 0;
    progress(0, totalBytes);
    for (;;) {
      const { type, bytes } = await this.channel.receive(MessageType.pages, MessageType.sent);
      if (type === MessageType.sent) break;
      const count = bytes[1] ?? 0;
      if (
        count < 1 ||
        count > FRAME_CHUNKS ||
        arrived + count > needed.length ||
        bytes.length < 4 + 4 * count
      )
        throw remoteFailed('sends pages that were not asked for');
      for (let i = 0; i < count; i++)
        if (bytes.readUInt32LE(4 + 4 * i) !== needed[arrived + i])
          throw remoteFailed('sends pages that were not asked for');
      const payload = bytes.subarray(4 + 4 * count);
      unpack(payload, bytes[0]!, raw, count * PAGE_BYTES);
      const digests = Buffer.concat(this.#neededDigests.slice(arrived, arrived + count));
      const { places, fingerprints } = await this.save.arrive(raw, digests);
      for (let i = 0; i < count; i++) this.#settle(needed[arrived + i]!, places, fingerprints, i);
      arrived += count;
      sentBytes += payload.length;
      sinceCheckpoint += count;
      progress(arrived * PAGE_BYTES, totalBytes);
      if (sinceCheckpoint >= CHECKPOINT_PAGES) {
        await this.save.checkpoint();
        sinceCheckpoint = 0;
      }
    }
    if (arrived < needed.length) throw remoteFailed('has not sent all that is needed');
    return sentBytes;
  }

  #settle(index: number, places: Uint32Array, fingerprints: Uint32Array, from: number): void {
    if (places[2 * from] === 0) throw remoteFailed('sends a page of zeros, which is never stored');
    this.#places.all.set(places.subarray(2 * from, 2 * from + 2), 2 * index);
    this.#fingerprints.all.set(fingerprints.subarray(2 * from, 2 * from + 2), 2 * index);
  }

  #place(region: number, layout: Uint32Array): void {
    const allPlaces = this.#places.all;
    const allFingerprints = this.#fingerprints.all;
    for (let from = 0; from < layout.length; from += 2 * PLACE_PAGES) {
      const count = Math.min(PLACE_PAGES, (layout.length - from) / 2);
      const pages = new Uint32Array(count);
      const places = new Uint32Array(2 * count);
      const fingerprints = new Uint32Array(2 * count);
      for (let i = 0; i < count; i++) {
        pages[i] = layout[from + 2 * i]!;
        const index = layout[from + 2 * i + 1]!;
        places.set(allPlaces.subarray(2 * index, 2 * index + 2), 2 * i);
        fingerprints.set(allFingerprints.subarray(2 * index, 2 * index + 2), 2 * i);
      }
      this.save.place(region, pages, places, fingerprints);
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
