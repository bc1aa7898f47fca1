/**
 * Files as snapshots: `put` stores a file or a stream, `get` writes a region to a file or a stream. file-source.ts reads the sources,
 * file-target.ts writes the targets.
 *
 * Invariants:
 * - The last page may be short. It is stored padded with zeros, and the region's size is the file's size.
 * - Holes are neither read nor written.
 */
import type { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { PAGE_BYTES, type PageSink, type Region } from '../../page-stream.js';
import type { StoreContext } from '../context.js';
import { storeError } from '../disk/layout.js';
import type { PackSet } from '../pack/pack-set.js';
import { Save } from '../save/save.js';
import { BLOCK_PAGES } from '../snapshot/block-list.js';
import { readBlock, readPages } from '../snapshot/manifest.js';
import type { StoredSnapshot } from '../stored-snapshot.js';
import { requireTagLabels } from '../tags.js';
import type { Progress, SaveResult } from '../types.js';
import { baseName, type FileName, isFileName } from './file-names.js';
import { type FileSource, openSource } from './file-source.js';
import { FileReplacement, findTarget, openStream, standardOutput, targetError } from './file-target.js';

export interface PutOptions {
  readonly tags: readonly string[];
  /** Null: the base name of the file. */
  readonly name: string | null;
  /** When it is aborted, nothing is stored, and a stream that is read is destroyed. */
  readonly signal?: AbortSignal | undefined;
}

/** Errors: NO_SUCH_FILE, USAGE, NO_PERMISSION, SYSTEM (the source cannot be read), and those of a save. */
export async function putFile(
  context: StoreContext,
  input: FileName | Readable,
  options: PutOptions,
  progress?: Progress,
): Promise<SaveResult> {
  requireTagLabels(options.tags);
  const source = openSource(input);
  const cancel = (): void => source.cancel();
  options.signal?.addEventListener('abort', cancel);
  try {
    const name = options.name ?? (isFileName(input) ? baseName(input) : null);
    return await putPages(context, source, { ...options, name }, progress);
  } finally {
    options.signal?.removeEventListener('abort', cancel);
    await source.close();
  }
}

async function putPages(
  context: StoreContext,
  source: FileSource,
  { tags, name, signal }: PutOptions,
  progress?: Progress,
): Promise<SaveResult> {
  signal?.throwIfAborted();
  const save = await Save.begin(context, []);
  try {
    await save.store(source, () => {
      // A file may have grown since it was opened, and files of procfs show no size.
      const total = source.expectedBytes || null;
      progress?.(source.sizeBytes, total && Math.max(total, source.sizeBytes));
    });
    signal?.throwIfAborted();
    return await save.commit({
      kind: 'file',
      vm: name,
      tags,
      memoryBytes: source.sizeBytes,
      diskBytes: 0,
      machine: null,
      host: null,
      state: new Uint8Array(0),
    });
  } catch (error) {
    await save.abort();
    throw signal?.aborted ? signal.reason : error;
  }
}

/**
 * Writes the region to the name or stream `to`. The caller closes the snapshot.
 *
 * - A regular file, even if `to` is a link to it, is replaced once the new file is complete.
 * - A stream, a pipe, a device and a file that this process has open (/dev/stdout, /dev/fd/N) are written front to
 *   back. Each block of 512 pages is verified before it is written. So the output before damage is right, but
 *   incomplete.
 *
 * `signal` cancels it: a file that would be replaced stays, and a stream is destroyed.
 *
 * Errors: USAGE (any other target), NO_SPACE, READ_ONLY, NO_PERMISSION, NO_SUCH_FILE, DAMAGED, SYSTEM.
 */
export async function getFile(
  snapshot: StoredSnapshot,
  region: Region,
  to: FileName | Writable,
  progress?: Progress,
  signal?: AbortSignal,
): Promise<{ bytes: number }> {
  signal?.throwIfAborted();
  const bytes = region.sizeBytes;
  const target = isFileName(to) ? findTarget(to, snapshot.context.dir) : standardOutput(to);
  if (target === null) {
    await writeStream(snapshot, region, 'the stream', to as Writable, { end: false, progress, signal });
    return { bytes };
  }
  if (target.kind === 'stream') {
    const { output, end } = await openStream(target, signal);
    await writeStream(snapshot, region, target.name, output, { end, progress, signal });
    return { bytes };
  }
  const replacement = new FileReplacement(target, region);
  try {
    await snapshot.fill(unlessCancelled(replacement, signal), progress);
    signal?.throwIfAborted();
    await replacement.commit();
  } finally {
    replacement.abandon();
  }
  return { bytes };
}

/** The sink, until the signal is aborted. Then its writes fail. */
const unlessCancelled = (sink: PageSink, signal: AbortSignal | undefined): PageSink => ({
  regions: sink.regions,
  write(run, bytes) {
    signal?.throwIfAborted();
    return sink.write(run, bytes);
  },
});

interface StreamOptions {
  /** Whether the stream is ended after the last byte. */
  readonly end: boolean;
  readonly progress: Progress | undefined;
  readonly signal: AbortSignal | undefined;
}

async function writeStream(
  snapshot: StoredSnapshot,
  region: Region,
  name: string,
  output: Writable,
  { end, progress, signal }: StreamOptions,
): Promise<void> {
  const { context } = snapshot;
  const packs = context.packSet();
  let failure: { readonly error: unknown } | null = null;
  async function* verified(): AsyncGenerator<Buffer> {
    try {
      yield* blocksOf(snapshot, packs, region, progress);
    } catch (error) {
      failure = { error: storeError(context.dir, error) };
      throw error;
    }
  }
  // The signal of `pipeline` does not destroy a stream that it does not end.
  const cancel = (): void => void output.destroy();
  try {
    signal?.addEventListener('abort', cancel);
    await pipeline(verified, output, { end });
  } catch (error) {
    signal?.throwIfAborted();
    throw (failure as { error: unknown } | null)?.error ?? targetError(name, error);
  } finally {
    signal?.removeEventListener('abort', cancel);
    packs.close();
  }
}

async function* blocksOf(
  { context, file }: StoredSnapshot,
  packs: PackSet,
  { name, sizeBytes }: Region,
  progress?: Progress,
): AsyncGenerator<Buffer> {
  const { ops } = context;
  const blockBytes = BLOCK_PAGES * PAGE_BYTES;
  const entries = file.blocks.entriesOf(file.description.regions.findIndex((region) => region.name === name));
  let next = entries.next();
  for (let at = 0, number = 0; at < sizeBytes; at += blockBytes, number++) {
    const entry = next.done || next.value.block !== number ? null : next.value;
    const bytes = Buffer.alloc(blockBytes);
    if (entry) {
      next = entries.next();
      const block = readBlock(ops, packs, file.description, entry);
      readPages(ops, packs, file.description, entry, block, 0, bytes);
    }
    yield bytes.subarray(0, Math.min(blockBytes, sizeBytes - at));
    progress?.(Math.min(sizeBytes, at + blockBytes), sizeBytes);
  }
}
