/**
 * The source end of a copy from a remote that only gives files (remote-files.ts). It reads the store without its index:
 * `tags/LABEL` gives the ID, `snapshots/ID` the blocks, and packs are found by number (docs/copy.md).
 *
 * Fetched parts of packs go to spools in the destination store and are read from there like local packs, so the same
 * code verifies them.
 *
 * Invariant: pages stay in a spool only until they are passed on.
 */
import { LivesnapError } from '../../errors.js';
import type { Channel } from '../copy/channel.js';
import type { CopyResult, SendOptions } from '../copy/copy-result.js';
import { type CopyEnd, copyInProcess } from '../copy/sessions.js';
import { sendSnapshot } from '../copy/source-end.js';
import { SNAPSHOT_ID, SNAPSHOTS, TAG_LABEL, TAGS } from '../disk/layout.js';
import { snapshotRow } from '../index/index-database.js';
import { decodeSnapshot, MAX_COPIED_FILE_BYTES, snapshotFile } from '../snapshot/snapshot-file.js';
import type { SnapshotSummary } from '../types.js';
import type { CopyTask } from './remote.js';
import type { RemoteFiles } from './remote-files.js';
import { PageWindow } from './remote-pack.js';
import { RemoteReader } from './remote-reader.js';
import { Spool } from './spool.js';

/** Copies from `files` to `store`. Errors: REMOTE_FAILED, DAMAGED, and those of `store`. */
export async function copyFromFiles(
  files: RemoteFiles,
  store: CopyEnd,
  { refs, onPlan, onDone = () => {}, progress, signal }: CopyTask,
): Promise<CopyResult[]> {
  const source = new FilesSource(files, store.dir);
  const results: CopyResult[] = [];
  let before = 0;
  /** The network carried frames of packs, not the pages of the protocol. */
  const count = (result: CopyResult): void => {
    const counted = { ...result, sentBytes: files.fetchedBytes - before };
    before = files.fetchedBytes;
    results.push(counted);
    onDone(counted);
  };
  try {
    await copyInProcess(store, source, 'from', refs, { onPlan, onDone: count, progress, signal });
    return results;
  } catch (error) {
    throw source.localFailure ?? error;
  } finally {
    source.close();
  }
}

class FilesSource implements CopyEnd {
  /** By snapshot, once they were listed. */
  #tags: ReadonlyMap<string, readonly string[]> = new Map();
  readonly #lists: Spool;
  readonly #window: PageWindow;

  /** `dir`: the destination store, for spools. Errors: NO_SPACE, READ_ONLY. */
  constructor(
    readonly files: RemoteFiles,
    dir: string,
  ) {
    this.#lists = new Spool(dir);
    this.#window = new PageWindow(new Spool(dir));
  }

  get dir(): string {
    return this.files.base;
  }

  async sendCopy(channel: Channel, ref: string, options: SendOptions): Promise<CopyResult> {
    const reader = await this.#open(ref);
    try {
      return await sendSnapshot(channel, reader, options);
    } finally {
      reader.close();
    }
  }

  /** Reads every snapshot's file. Errors: REMOTE_FAILED. */
  async list(): Promise<SnapshotSummary[]> {
    const ids = await this.files.list(SNAPSHOTS, SNAPSHOT_ID);
    if (ids === null)
      throw new LivesnapError('REMOTE_FAILED', `${this.dir} does not list its files`, {
        hint: 'Turn on directory listings in the web server, or name the snapshots to copy.',
      });
    const tags = new Map<string, string[]>();
    for (const tag of (await this.files.list(TAGS, TAG_LABEL)) ?? []) {
      const id = await this.#readTag(tag);
      if (id !== null) tags.set(id, [...(tags.get(id) ?? []), tag].sort());
    }
    this.#tags = tags;
    const all: SnapshotSummary[] = [];
    for (const id of ids) {
      const bytes = await this.#readSmall(snapshotFile(id), MAX_COPIED_FILE_BYTES);
      if (bytes !== null) all.push({ ...summaryOf(id, bytes), tags: tags.get(id) ?? [] });
    }
    return all;
  }

  receiveCopy(): Promise<CopyResult> {
    throw new LivesnapError('USAGE', `cannot copy to ${this.dir}`, {
      hint: 'Copy to a directory or over ssh.',
    });
  }

  async #open(ref: string): Promise<RemoteReader> {
    let id = SNAPSHOT_ID.test(ref) ? ref : null;
    // Unless they were listed, the other tags of the snapshot are not known: only the index has them.
    let tags = this.#tags.get(ref) ?? [];
    if (TAG_LABEL.test(ref)) {
      id = await this.#readTag(ref);
      tags = [ref];
    }
    const bytes = id === null ? null : await this.#readSmall(snapshotFile(id), MAX_COPIED_FILE_BYTES);
    if (id === null || bytes === null)
      throw new LivesnapError('NO_SUCH_SNAPSHOT', `no snapshot ${JSON.stringify(ref)} at ${this.dir}`, {
        hint: 'This kind of remote takes a tag or a full ID, not a prefix of an ID.',
      });
    this.#lists.clear();
    this.#window.begin(null, 0);
    return new RemoteReader(this.files, this.#lists, this.#window, decodeSnapshot(bytes, id), tags);
  }

  /** The ID that a tag's file names. Null: there is no such file, or it does not name a snapshot. */
  async #readTag(tag: string): Promise<string | null> {
    const text = (await this.#readSmall(`${TAGS}/${tag}`, 64))?.toString('latin1').trim();
    return text !== undefined && SNAPSHOT_ID.test(text) ? text : null;
  }

  async #readSmall(file: string, maxBytes: number): Promise<Buffer | null> {
    const parts: Buffer[] = [];
    const sizeBytes = await this.files.readWhole(file, maxBytes, (part) => parts.push(part));
    return sizeBytes === null ? null : Buffer.concat(parts);
  }

  /** A failure of this machine. The destination end has received it as if it were the remote's. */
  get localFailure(): unknown {
    return this.#lists.failure ?? this.#window.spool.failure;
  }

  close(): void {
    this.#lists.close();
    this.#window.spool.close();
  }
}

/** What the file of a snapshot tells. Of one that is damaged nothing is known; its copy will report the damage. */
function summaryOf(id: string, bytes: Buffer): Omit<SnapshotSummary, 'tags'> {
  try {
    const { logicalBytes: _, nonZeroPages: __, ...summary } = snapshotRow(decodeSnapshot(bytes, id));
    return summary;
  } catch (error) {
    if (!(error instanceof LivesnapError)) throw error;
    return {
      ...{ id, kind: 'file', vm: null, parent: null, createdAt: new Date(0).toISOString() },
      ...{ memoryBytes: 0, diskBytes: 0, storedBytes: 0, labels: {}, pauseMs: null },
    };
  }
}
