/**
 * Fills memories from open regions, and says what keeps it from that in terms of the store.
 *
 * Thread: the one that opened the store.
 */
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import { SystemError } from '../errors.js';
import type { MemoryHandle } from '../native/memory.js';
import { type FillError, MemoryFill } from '../native/memory-fill.js';
import { PAGE_BYTES, type Progress } from '../page-stream.js';
import { DamageError, rangeOf } from './disk/damage.js';
import { newerFormat } from './disk/format-version.js';
import { at } from './disk/layout.js';
import { notOfStore, permissionError } from './disk/store-error.js';
import type { StoredRegion } from './stored-region.js';

const PROGRESS_INTERVAL_MS = 50;
const { EBADMSG, EIO, EOPNOTSUPP } = constants.errno;

/** Resolves when all is filled. Errors: DAMAGED, NEWER_FORMAT, NO_PERMISSION, those of the system. */
export async function fillMemories(
  dir: string,
  targets: readonly { readonly region: StoredRegion; readonly memory: MemoryHandle }[],
  progress?: Progress,
): Promise<void> {
  const fill = new MemoryFill(
    targets.map(({ region: { reader }, memory }) => ({ memory, reader })),
    { lazy: false },
  );
  const tell = (): void => {
    const { doneBytes, totalBytes } = fill.progress;
    progress?.(doneBytes, totalBytes);
  };
  const telling = progress === undefined ? undefined : setInterval(tell, PROGRESS_INTERVAL_MS);
  try {
    await fill.ended;
    const { error } = fill;
    if (error !== null) throw errorOf(dir, error, targets[error.pair]!.region);
    tell();
  } finally {
    clearInterval(telling);
    fill.close();
  }
}

function errorOf(
  dir: string,
  { errno, file, offset, why, pageOffset }: FillError,
  filled: StoredRegion,
): Error {
  const name = getSystemErrorName(-errno);
  if (file === '') {
    const failure = new SystemError(why, errno, name, 'guest memory cannot be filled');
    notOfStore(failure);
    return failure;
  }
  if (errno === EBADMSG || errno === EIO) {
    const { snapshot, region } = filled;
    return new DamageError(file, offset, why).in(snapshot, rangeOf(region, pageOffset, PAGE_BYTES));
  }
  if (errno === EOPNOTSUPP) return newerFormat(`${file}: ${why}`);
  const error = Object.assign(new Error(`${file}: ${why}`), {
    ...{ code: name, errno: -errno, syscall: 'open', path: at(dir, file) },
  });
  return permissionError(dir, error) ?? error;
}
