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
import { SNAPSHOT_ID, TAG_LABEL, TAGS } from '../disk/layout.js';
import { decodeSnapshot, MAX_COPIED_FILE_BYTES, snapshotFile } from '../snapshot/snapshot-file.js';
import type { CopyTask } from './remote.js';
import type { RemoteFiles } from './remote-files.js';
import { PageWindow } from './remote-pack.js';
import { RemoteReader } from './remote-reader.js';
import { Spool } from './spool.js';

/** Copies from `files` to `store`. Errors: REMOTE_FAILED, DAMAGED, and those of `store`. */
export async function copyFromFiles(
  files: RemoteFiles,
  store: CopyEnd,
  { refs, onPlan, progress }: CopyTask,
): Promise<CopyResult[]> {
  const source = new FilesSource(files, store.dir);
  try {
    const results = await copyInProcess(store, source, 'from', refs, { onPlan, progress });
    // The network carried frames of packs, not the pages of the protocol.
    return results.map((result, i) => ({ ...result, sentBytes: source.sentBytes[i] ?? result.sentBytes }));
  } catch (error) {
    throw source.localFailure ?? error;
  } finally {
    source.close();
  }
}

class FilesSource implements CopyEnd {
  /** Bytes fetched for each snapshot. */
  readonly sentBytes: number[] = [];
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
    const before = this.files.fetchedBytes;
    const reader = await this.#open(ref);
    try {
      return await sendSnapshot(channel, reader, options);
    } finally {
      reader.close();
      this.sentBytes.push(this.files.fetchedBytes - before);
    }
  }

  receiveCopy(): Promise<CopyResult> {
    throw new LivesnapError('USAGE', `cannot copy to ${this.dir}`, {
      hint: 'Copy to a directory or over ssh.',
    });
  }

  async #open(ref: string): Promise<RemoteReader> {
    let id = SNAPSHOT_ID.test(ref) ? ref : null;
    // The other tags of the snapshot are not known: only the index could list them.
    let tags: string[] = [];
    if (TAG_LABEL.test(ref)) {
      const text = (await this.#readSmall(`${TAGS}/${ref}`, 64))?.toString('latin1').trim();
      if (text !== undefined && SNAPSHOT_ID.test(text)) {
        id = text;
        tags = [ref];
      }
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
