/**
 * A store behind a web server that serves its files, read without its index: `tags/LABEL` gives the id, `snapshots/ID`
 * the blocks, packs are found by number (docs/copy.md).
 *
 * What is fetched of packs is put into nameless files in the store that the copy is for, and read from there as a
 * store's packs are, so that everything is verified by the same code. Invariants: the server is hostile, and the length
 * of what it sends is checked before it is kept; pages are kept no longer than it takes to pass them on.
 */
import { LivesnapError } from '../../errors.js';
import { pageOps } from '../../native/pages.js';
import { DamageError } from '../damage.js';
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
  PAGE_BYTES,
} from '../format.js';
import { packFile, SNAPSHOT_ID, TAG_LABEL, TAGS } from '../layout.js';
import { type ManifestBlock, readBlock } from '../manifest.js';
import { PackReader, PackSet } from '../pack-reader.js';
import {
  type BlockEntry,
  type BlockList,
  decodeSnapshot,
  MAX_COPIED_FILE_BYTES,
  pagesOfBlock,
  type SnapshotDescription,
  type SnapshotFile,
  snapshotFile,
} from '../snapshot-file.js';
import { parseAddress } from './address.js';
import type { Channel } from './channel.js';
import type { CopyResult, OnPlan } from './copy-result.js';
import { identitiesOf } from './local-reader.js';
import { Passage, RemotePack } from './remote-pack.js';
import type { CopyEnd } from './sessions.js';
import type { PackIdentities, SnapshotReader } from './snapshot-reader.js';
import { sendSnapshot } from './source-end.js';
import { Spool } from './spool.js';

/** gc rewrites a pack when a twentieth of it is dead, so it cannot be more often than this. */
const MAX_GENERATIONS = 256;
/** Frames that are wanted and lie close to each other come with one request, of about so many bytes. */
const FETCH_BYTES = 4 << 20;
const GAP_BYTES = 64 << 10;

export class HttpStore implements CopyEnd {
  /** What each snapshot made travel. */
  readonly sentBytes: number[] = [];
  readonly #base: string;
  readonly #keep: Spool;
  readonly #passage: Passage;
  fetchedBytes = 0;

  /** `dir`: the store that the copy is for. Errors: USAGE, NO_SPACE, READ_ONLY. */
  constructor(address: string, dir: string) {
    const { href } = parseAddress(address);
    this.#base = href.endsWith('/') ? href : `${href}/`;
    this.#keep = new Spool(dir);
    this.#passage = new Passage(new Spool(dir));
  }

  get dir(): string {
    return this.#base;
  }

  async sendCopy(
    channel: Channel,
    ref: string,
    options: { compress: boolean; onPlan: OnPlan },
  ): Promise<CopyResult> {
    const before = this.fetchedBytes;
    const reader = await this.#open(ref);
    try {
      return await sendSnapshot(channel, reader, options);
    } finally {
      reader.close();
      this.sentBytes.push(this.fetchedBytes - before);
    }
  }

  receiveCopy(): Promise<CopyResult> {
    throw new LivesnapError('USAGE', 'nothing can be copied to a web server');
  }

  async #open(ref: string): Promise<HttpReader> {
    let id = SNAPSHOT_ID.test(ref) ? ref : null;
    let tag: string | null = null;
    if (TAG_LABEL.test(ref)) {
      const text = (await this.getIfThere(`${TAGS}/${ref}`, 64))?.toString('latin1').trim();
      if (text !== undefined && SNAPSHOT_ID.test(text)) {
        id = text;
        tag = ref;
      }
    }
    const bytes = id === null ? null : await this.getIfThere(snapshotFile(id), MAX_COPIED_FILE_BYTES);
    if (id === null || bytes === null)
      throw new LivesnapError(
        'NO_SUCH_SNAPSHOT',
        `there is no snapshot ${JSON.stringify(ref)} at ${this.#base}`,
        {
          hint: 'Over http a snapshot is named by its tag or its whole id.',
        },
      );
    this.#keep.clear();
    this.#passage.begin(null, 0);
    return new HttpReader(this, this.#keep, this.#passage, decodeSnapshot(bytes, id), tag);
  }

  async request(file: string, range?: string): Promise<Response> {
    let response: Response;
    try {
      // Files of a store do not shrink by compression, and lengths are to be those of the file.
      const headers = { 'accept-encoding': 'identity', ...(range === undefined ? {} : { range }) };
      response = await fetch(this.#base + file, { headers, redirect: 'follow' });
    } catch (error) {
      throw new LivesnapError('REMOTE_FAILED', `${this.#base} cannot be read: ${reasonOf(error)}`, {
        hint: 'Check the address; a copy that was cut goes on where it stopped.',
        cause: error,
      });
    }
    if (!response.ok && response.status !== 404 && response.status !== 416) {
      await response.body?.cancel();
      throw new LivesnapError('REMOTE_FAILED', `${this.#base}${file}: the server says ${response.status}`, {
        hint: 'The address must be that of a store’s directory, and its files readable.',
      });
    }
    return response;
  }

  /** A small file, whole; null when there is none. Errors: REMOTE_FAILED. */
  async getIfThere(file: string, maxBytes: number): Promise<Buffer | null> {
    const response = await this.request(file);
    if (response.status === 404) {
      await response.body?.cancel();
      return null;
    }
    const parts: Buffer[] = [];
    await this.consume(response, maxBytes, (part) => parts.push(part));
    return Buffer.concat(parts);
  }

  /** Takes at most `maxBytes` of a response. Errors: REMOTE_FAILED, and those of `take`. */
  async consume(response: Response, maxBytes: number, take: (part: Buffer) => void): Promise<number> {
    let total = 0;
    const parts = (response.body ?? new Blob([]).stream()).getReader();
    try {
      for (;;) {
        const { done, value } = await parts.read().catch((error: unknown) => {
          throw new LivesnapError('REMOTE_FAILED', `${this.#base} broke off: ${reasonOf(error)}`, {
            hint: 'What has arrived is kept: begin the copy again.',
            cause: error,
          });
        });
        if (done) return total;
        total += value.length;
        this.fetchedBytes += value.length;
        if (total > maxBytes)
          throw new LivesnapError('REMOTE_FAILED', `${this.#base} sends more than a store’s file can have`);
        take(Buffer.from(value.buffer, value.byteOffset, value.length));
      }
    } finally {
      await parts.cancel().catch(() => {});
    }
  }

  /** What failed on this side: the other end of the copy has been told of it as if it were the server's. */
  get ownFailure(): unknown {
    return this.#keep.failure ?? this.#passage.spool.failure;
  }

  close(): void {
    this.#keep.close();
    this.#passage.spool.close();
  }
}

const reasonOf = (error: unknown): string =>
  ((error as Error).cause as Error | undefined)?.message ?? (error as Error).message;

/** The packs of a server; those that are asked for have been fetched as far as they are needed. */
class RemotePackSet extends PackSet {
  constructor(readonly remote: ReadonlyMap<number, RemotePack>) {
    super(pageOps, '', (number) => remote.get(number)?.generation);
  }

  protected override openPack(number: number): PackReader {
    const bytes = this.remote.get(number)!;
    return new PackReader(pageOps, '', { number, generation: bytes.generation }, { bytes });
  }
}

class HttpReader implements SnapshotReader {
  readonly #remote = new Map<number, RemotePack>();
  readonly #packs = new RemotePackSet(this.#remote);
  /** Frames that will be asked for, by pack, ascending. */
  readonly #wanted = new Map<number, number[]>();
  #identities: { pack: number; of: PackIdentities } | null = null;

  constructor(
    readonly store: HttpStore,
    readonly keep: Spool,
    readonly passage: Passage,
    readonly file: SnapshotFile,
    readonly tag: string | null,
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
    for (const { pack, chunk } of [entry.places, entry.fingerprints])
      await this.#fetchChunk(pack, chunk, true);
    return readBlock(pageOps, this.#packs, entry, pagesOfBlock(this.description.regions, entry));
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

  async expect(places: Iterable<{ pack: number; chunk: number }>): Promise<void> {
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

  /** Fetches the frame of a chunk, and those after it that will be wanted next. */
  async #fetchChunk(number: number, chunk: number, isManifest: boolean): Promise<void> {
    const pack = await this.#find(number);
    const reader = this.#packs.pack(number);
    const position = reader.positionOf(chunk);
    if (position < 0) return;
    const index = reader.frames.indexOf(position);
    const first = reader.frames.at(index);
    let end = first.offset + frameBytes(first);
    if (pack.has(first.offset, end)) return;
    if (pack.isWhole) {
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
      this.passage.begin(pack, first.offset);
      await this.#fetch(pack.file, first.offset, end, this.passage.spool);
      this.passage.end();
    }
  }

  /** Finds the pack and fetches its header and lists. */
  async #find(number: number): Promise<RemotePack> {
    let pack = this.#remote.get(number) ?? null;
    if (pack) return pack;
    for (let generation = 0; !pack && generation < MAX_GENERATIONS; generation++)
      pack = await this.#findGeneration(number, generation);
    if (!pack) throw new DamageError(packFile(number, 0), null, 'the pack is missing');
    this.#remote.set(number, pack);
    if (pack.isWhole) this.#keepLists(number, pack);
    return pack;
  }

  async #findGeneration(number: number, generation: number): Promise<RemotePack | null> {
    const file = packFile(number, generation);
    const response = await this.store.request(file, `bytes=-${FOOTER_BYTES}`);
    if (response.status !== 200 && response.status !== 206) {
      await response.body?.cancel();
      return null;
    }
    if (response.status === 200) {
      this.passage.begin(null, 0);
      const size = await this.#take(response, MAX_PACK_BYTES, this.passage.spool);
      const pack = new RemotePack(file, generation, size, true, this.keep, this.passage);
      this.passage.owner = pack;
      this.passage.end();
      return pack;
    }
    const total = Number(
      /^bytes \d+-\d+\/(\d+)$/.exec(response.headers.get('content-range') ?? '')?.[1] ?? Number.NaN,
    );
    if (!(total >= PACK_HEADER_BYTES + FOOTER_BYTES && total <= MAX_PACK_BYTES)) {
      await response.body?.cancel();
      throw new DamageError(file, null, `a pack cannot have ${total} bytes`);
    }
    const parts: Buffer[] = [];
    await this.store.consume(response, FOOTER_BYTES, (part) => parts.push(part));
    const footer = Buffer.concat(parts);
    if (footer.length !== FOOTER_BYTES)
      throw new DamageError(file, total - FOOTER_BYTES, 'the file ends too early');
    let trailerOffset: number;
    try {
      ({ trailerOffset } = decodeFooter(pageOps, footer, { number, generation }, total, file));
    } catch (error) {
      if (error instanceof FormatError) throw new DamageError(file, total - FOOTER_BYTES, error.message);
      throw error;
    }
    if (total - trailerOffset > PACK_CHUNKS * (16 + CHUNK_ENTRY_BYTES) + FOOTER_BYTES)
      throw new DamageError(file, trailerOffset, 'the lists are longer than they can be');
    const pack = new RemotePack(file, generation, total, false, this.keep, this.passage);
    await this.#fetchToKeep(pack, 0, PACK_HEADER_BYTES);
    await this.#fetchToKeep(pack, trailerOffset, total);
    return pack;
  }

  /** Of a pack that has come whole: what is not pages is kept, and pages are fetched once more when they are sent. */
  #keepLists(number: number, pack: RemotePack): void {
    const { frames, footer } = this.#packs.pack(number);
    pack.keepPassing(0, PACK_HEADER_BYTES);
    pack.keepPassing(footer.trailerOffset, pack.sizeBytes);
    let [from, to] = [0, 0];
    for (const frame of frames) {
      if ((frame.flags & FrameFlag.manifest) === 0) continue;
      if (frame.offset !== to) {
        if (to > from) pack.keepPassing(from, to);
        from = frame.offset;
      }
      to = frame.offset + frameBytes(frame);
    }
    if (to > from) pack.keepPassing(from, to);
  }

  async #fetchWhole(pack: RemotePack): Promise<void> {
    const response = await this.store.request(pack.file);
    this.passage.begin(pack, 0);
    const size =
      response.status === 200 ? await this.#take(response, MAX_PACK_BYTES, this.passage.spool) : Number.NaN;
    if (size !== pack.sizeBytes) {
      await response.body?.cancel().catch(() => {});
      throw new LivesnapError(
        'REMOTE_FAILED',
        `${this.store.dir}${pack.file} is not what it was a moment ago`,
        { hint: 'What has arrived is kept: begin the copy again.' },
      );
    }
    this.passage.end();
  }

  async #fetchToKeep(pack: RemotePack, from: number, to: number): Promise<void> {
    const at = this.keep.sizeBytes;
    await this.#fetch(pack.file, from, to, this.keep);
    pack.kept(from, at);
  }

  async #fetch(file: string, from: number, to: number, into: Spool): Promise<void> {
    const response = await this.store.request(file, `bytes=${from}-${to - 1}`);
    const got = response.headers.get('content-range') ?? '';
    if (response.status !== 206 || !got.startsWith(`bytes ${from}-${to - 1}/`)) {
      await response.body?.cancel();
      throw new LivesnapError(
        'REMOTE_FAILED',
        `${this.store.dir}${file}: the server does not give what it was asked for`,
      );
    }
    const length = await this.#take(response, to - from, into);
    if (length !== to - from)
      throw new LivesnapError('REMOTE_FAILED', `${this.store.dir}${file}: the server breaks off`);
  }

  #take(response: Response, maxBytes: number, into: Spool): Promise<number> {
    return this.store.consume(response, maxBytes, (part) => into.append(part));
  }

  close(): void {
    this.#packs.close();
  }
}

function* following(index: number, count: number): Generator<number> {
  for (let i = index + 1; i < count; i++) yield i;
}
