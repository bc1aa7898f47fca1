/**
 * A store of which the files can be fetched and nothing more (remote-files.ts), as the source of a copy. It is read
 * without its index: `tags/LABEL` gives the id, `snapshots/ID` the blocks, packs are found by number (docs/copy.md).
 *
 * What is fetched of packs is put into nameless files in the store that the copy is for, and read from there as a
 * store's packs are, so that everything is verified by the same code. Invariant: pages are kept no longer than it takes
 * to pass them on.
 */
import { LivesnapError } from '../../errors.js';
import type { Channel } from '../copy/channel.js';
import type { CopyResult, SendOptions } from '../copy/copy-result.js';
import { type CopyEnd, copyWithin } from '../copy/sessions.js';
import { sendSnapshot } from '../copy/source-end.js';
import { SNAPSHOT_ID, TAG_LABEL, TAGS } from '../layout.js';
import { decodeSnapshot, MAX_COPIED_FILE_BYTES, snapshotFile } from '../snapshot-file.js';
import { FilesReader } from './files-reader.js';
import type { CopyTask } from './remote.js';
import type { RemoteFiles } from './remote-files.js';
import { PageWindow } from './remote-pack.js';
import { Spool } from './spool.js';

/** Copies from such a store. Errors: REMOTE_FAILED, DAMAGED, and those of `store`. */
export async function copyFromFiles(
  files: RemoteFiles,
  store: CopyEnd,
  { refs, onPlan, progress }: CopyTask,
): Promise<CopyResult[]> {
  const source = new FilesStore(files, store.dir);
  try {
    const results = await copyWithin(store, source, 'from', refs, { onPlan, progress });
    // What travelled are frames of packs, not pages.
    return results.map((result, i) => ({ ...result, sentBytes: source.sentBytes[i] ?? result.sentBytes }));
  } catch (error) {
    throw source.ownFailure ?? error;
  } finally {
    source.close();
  }
}

class FilesStore implements CopyEnd {
  /** What each snapshot made travel. */
  readonly sentBytes: number[] = [];
  readonly #lists: Spool;
  readonly #window: PageWindow;

  /** `dir`: the store that the copy is for. Errors: NO_SPACE, READ_ONLY. */
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
    throw new LivesnapError('USAGE', `nothing can be copied to ${this.dir}`);
  }

  async #open(ref: string): Promise<FilesReader> {
    let id = SNAPSHOT_ID.test(ref) ? ref : null;
    let tag: string | null = null;
    if (TAG_LABEL.test(ref)) {
      const text = (await this.#small(`${TAGS}/${ref}`, 64))?.toString('latin1').trim();
      if (text !== undefined && SNAPSHOT_ID.test(text)) {
        id = text;
        tag = ref;
      }
    }
    const bytes = id === null ? null : await this.#small(snapshotFile(id), MAX_COPIED_FILE_BYTES);
    if (id === null || bytes === null)
      throw new LivesnapError(
        'NO_SUCH_SNAPSHOT',
        `there is no snapshot ${JSON.stringify(ref)} at ${this.dir}`,
        {
          hint: 'At such an address a snapshot is named by its tag or its whole id.',
        },
      );
    this.#lists.clear();
    this.#window.begin(null, 0);
    return new FilesReader(this.files, this.#lists, this.#window, decodeSnapshot(bytes, id), tag);
  }

  async #small(file: string, maxBytes: number): Promise<Buffer | null> {
    const parts: Buffer[] = [];
    const size = await this.files.whole(file, maxBytes, (part) => parts.push(part));
    return size === null ? null : Buffer.concat(parts);
  }

  /** What failed on this side: the other end of the copy has been told of it as if it were the remote's. */
  get ownFailure(): unknown {
    return this.#lists.failure ?? this.#window.spool.failure;
  }

  close(): void {
    this.#lists.close();
    this.#window.spool.close();
  }
}
