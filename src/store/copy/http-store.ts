/**
 * A store behind a web server that serves its files, read without its index: `tags/LABEL` gives the id, `snapshots/ID`
 * the blocks, packs are found by number (docs/copy.md).
 *
 * What is fetched is put where it belongs in a private directory that looks like the store, in files with holes, and
 * read from there; so everything is verified by the code that reads stores. Invariant: the server is hostile, and the
 * length of what it sends is checked before it is kept.
 */
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
import {
  DIRECTORY_MODE,
  FILE_MODE,
  PACKS,
  packFile,
  SNAPSHOT_ID,
  SNAPSHOTS,
  TAG_LABEL,
  TAGS,
} from '../layout.js';
import { type ManifestBlock, readBlock } from '../manifest.js';
import { PackSet } from '../pack-reader.js';
import {
  type BlockEntry,
  type BlockList,
  MAX_COPIED_FILE_BYTES,
  readSnapshotFile,
  type SnapshotDescription,
  type SnapshotFile,
  snapshotFile,
} from '../snapshot-file.js';
import { parseAddress } from './address.js';
import type { Channel } from './channel.js';
import type { CopyResult, OnPlan } from './copy-result.js';
import { identitiesOf } from './local-reader.js';
import type { CopyEnd } from './sessions.js';
import type { PackIdentities, SnapshotReader } from './snapshot-reader.js';
import { sendSnapshot } from './source-end.js';

/** gc rewrites a pack when a twentieth of it is dead, so it cannot be more often than this. */
const MAX_GENERATIONS = 256;
/** Frames that are wanted and lie close to each other come with one request, of about so many bytes. */
const FETCH_BYTES = 4 << 20;
const GAP_BYTES = 64 << 10;

export class HttpStore implements CopyEnd {
  /** Looks like the store, as far as it has been fetched. */
  readonly mirror = mkdtempSync(join(tmpdir(), 'livesnap-copy-'));
  /** What each snapshot made travel. */
  readonly sentBytes: number[] = [];
  readonly #base: string;
  fetchedBytes = 0;

  /** Errors: USAGE. */
  constructor(address: string) {
    const { href } = parseAddress(address);
    this.#base = href.endsWith('/') ? href : `${href}/`;
    for (const folder of [PACKS, SNAPSHOTS]) mkdirSync(join(this.mirror, folder), { mode: DIRECTORY_MODE });
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
    writeFileSync(join(this.mirror, snapshotFile(id)), bytes, { mode: FILE_MODE });
    return new HttpReader(this, readSnapshotFile(this.mirror, id), tag);
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

  /** Takes at most `maxBytes` of a response. */
  async consume(response: Response, maxBytes: number, take: (part: Buffer) => void): Promise<number> {
    let total = 0;
    try {
      for await (const chunk of response.body ?? []) {
        const part = Buffer.from(chunk);
        total += part.length;
        this.fetchedBytes += part.length;
        if (total > maxBytes) break;
        take(part);
      }
    } catch (error) {
      throw new LivesnapError('REMOTE_FAILED', `${this.#base} broke off: ${reasonOf(error)}`, {
        hint: 'What has arrived is kept: begin the copy again.',
        cause: error,
      });
    }
    if (total > maxBytes)
      throw new LivesnapError('REMOTE_FAILED', `${this.#base} sends more than a store’s file can have`);
    return total;
  }

  close(): void {
    rmSync(this.mirror, { recursive: true, force: true });
  }
}

const reasonOf = (error: unknown): string =>
  ((error as Error).cause as Error | undefined)?.message ?? (error as Error).message;

/** A pack as far as it has been fetched. */
interface MirroredPack {
  readonly file: string;
  /** Frames that are in the mirror; null: all of the pack is. */
  readonly frames: Set<number> | null;
}

class HttpReader implements SnapshotReader {
  readonly #generations = new Map<number, number>();
  readonly #mirrored = new Map<number, MirroredPack>();
  readonly #packs: PackSet;
  /** Frames that will be asked for, by pack, ascending. */
  readonly #wanted = new Map<number, number[]>();
  #identities: { pack: number; of: PackIdentities } | null = null;

  constructor(
    readonly store: HttpStore,
    readonly file: SnapshotFile,
    readonly tag: string | null,
  ) {
    this.#packs = new PackSet(pageOps, store.mirror, (number) => this.#generations.get(number));
  }

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
    return readBlock(pageOps, this.#packs, entry);
  }

  async hasChunk(pack: number, chunk: number): Promise<boolean> {
    await this.#mirror(pack);
    return this.#packs.pack(pack).positionOf(chunk) >= 0;
  }

  async identities(pack: number): Promise<PackIdentities> {
    if (this.#identities?.pack !== pack) {
      await this.#mirror(pack);
      this.#identities = { pack, of: identitiesOf(this.#packs.pack(pack)) };
    }
    return this.#identities.of;
  }

  async expect(places: Iterable<{ pack: number; chunk: number }>): Promise<void> {
    for (const { pack, chunk } of places) {
      await this.#mirror(pack);
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
  async #fetchChunk(pack: number, chunk: number, isManifest: boolean): Promise<void> {
    const mirrored = await this.#mirror(pack);
    const reader = this.#packs.pack(pack);
    const position = reader.positionOf(chunk);
    if (!mirrored.frames || position < 0) return;
    const index = reader.frames.indexOf(position);
    if (mirrored.frames.has(index)) return;
    const first = reader.frames.at(index);
    let end = first.offset + frameBytes(first);
    const fetched = [index];
    const next = isManifest ? following(index, reader.frames.length) : (this.#wanted.get(pack) ?? []);
    for (const candidate of next) {
      if (candidate <= index) continue;
      const frame = reader.frames.at(candidate);
      const isNear = frame.offset - end <= GAP_BYTES && frame.offset - first.offset < FETCH_BYTES;
      if (!isNear || (isManifest && (frame.flags & FrameFlag.manifest) === 0)) break;
      end = frame.offset + frameBytes(frame);
      fetched.push(candidate);
    }
    await this.#fetchInto(mirrored.file, first.offset, end);
    for (const frame of fetched) mirrored.frames.add(frame);
  }

  /** Finds the pack and fetches its header and lists. */
  async #mirror(number: number): Promise<MirroredPack> {
    let mirrored = this.#mirrored.get(number);
    if (mirrored) return mirrored;
    for (let generation = 0; !mirrored && generation < MAX_GENERATIONS; generation++)
      mirrored = (await this.#mirrorGeneration(number, generation)) ?? undefined;
    if (!mirrored) throw new DamageError(packFile(number, 0), null, 'the pack is missing');
    this.#mirrored.set(number, mirrored);
    return mirrored;
  }

  async #mirrorGeneration(number: number, generation: number): Promise<MirroredPack | null> {
    const file = packFile(number, generation);
    const response = await this.store.request(file, `bytes=-${FOOTER_BYTES}`);
    if (response.status !== 200 && response.status !== 206) {
      await response.body?.cancel();
      return null;
    }
    const path = join(this.store.mirror, file);
    this.#generations.set(number, generation);
    if (response.status === 200) {
      await this.#write(path, 0, response, MAX_PACK_BYTES);
      return { file, frames: null };
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
    const fd = openSync(path, 'wx', FILE_MODE);
    try {
      ftruncateSync(fd, total);
    } finally {
      closeSync(fd);
    }
    await this.#fetchInto(file, 0, PACK_HEADER_BYTES);
    await this.#fetchInto(file, trailerOffset, total);
    return { file, frames: new Set() };
  }

  async #fetchInto(file: string, from: number, to: number): Promise<void> {
    const response = await this.store.request(file, `bytes=${from}-${to - 1}`);
    const got = response.headers.get('content-range') ?? '';
    if (response.status !== 206 || !got.startsWith(`bytes ${from}-${to - 1}/`)) {
      await response.body?.cancel();
      throw new LivesnapError(
        'REMOTE_FAILED',
        `${this.store.dir}${file}: the server does not give what it was asked for`,
      );
    }
    const length = await this.#write(join(this.store.mirror, file), from, response, to - from);
    if (length !== to - from)
      throw new LivesnapError('REMOTE_FAILED', `${this.store.dir}${file}: the server breaks off`);
  }

  async #write(path: string, from: number, response: Response, maxBytes: number): Promise<number> {
    const fd = openSync(path, from === 0 && maxBytes === MAX_PACK_BYTES ? 'wx' : 'r+', FILE_MODE);
    try {
      let position = from;
      return await this.store.consume(response, maxBytes, (part) => {
        for (let done = 0; done < part.length; )
          done += writeSync(fd, part, done, part.length - done, position + done);
        position += part.length;
      });
    } finally {
      closeSync(fd);
    }
  }

  close(): void {
    this.#packs.close();
  }
}

function* following(index: number, count: number): Generator<number> {
  for (let i = index + 1; i < count; i++) yield i;
}
