/**
 * The I/O engine: reads and writes of files, straight on memories, on a few native threads that need no JavaScript.
 *
 * Invariants:
 * - No function here waits for I/O, except {@link closeIoEngine} and {@link waitForCompletion}.
 * - Every operation that was accepted completes once, in any order: no order between operations is promised.
 * - An engine holds the memories and the region reader of an operation until it has completed. A file descriptor stays
 *   its caller's, who closes it after the completion.
 * - A full engine refuses operations. So what waits in it is bounded, and so are its completions.
 *
 * An engine is an integer that any thread of the process may use. `id` is the caller's name for an operation, a 32-bit
 * integer. `ranges` are triples: memory, offset, length (at most {@link MAX_RANGES}); bytes go to or come from them in
 * this order. Every submit returns false when the engine is full: nothing was done, and the caller tries again after a
 * completion. A range outside its memory is a TypeError; a memory that was closed is MACHINE_GONE.
 */
import { addon } from './addon.js';
import type { RegionReader } from './region-reader.js';

/** Names an engine in every Worker of this process. */
export type IoEngine = number;

/** The most ranges of one operation (IOV_MAX). */
export const MAX_RANGES = 1024;

interface IoFunctions {
  ioCreate(threads: number, capacity: number): number;
  ioClose(engine: number, timeoutMs: number): boolean;
  ioFd(engine: number): number;
  ioTake(engine: number, into: Int32Array): number;
  ioWait(engine: number, timeoutMs: number): boolean;
  ioRead(engine: number, id: number, fd: number, offset: number, ranges: Float64Array): boolean;
  ioWrite(engine: number, id: number, fd: number, offset: number, ranges: Float64Array): boolean;
  ioStoreRead(engine: number, id: number, reader: number, offset: number, ranges: Float64Array): boolean;
  ioZeroMemory(engine: number, id: number, ranges: Float64Array): boolean;
  ioCopy(
    engine: number,
    id: number,
    fromFd: number,
    fromOffset: number,
    toFd: number,
    toOffset: number,
    length: number,
  ): boolean;
  ioStoreCopy(
    engine: number,
    id: number,
    reader: number,
    offset: number,
    toFd: number,
    toOffset: number,
    length: number,
  ): boolean;
  ioSync(engine: number, id: number, fd: number): boolean;
  ioAllocate(engine: number, id: number, fd: number, offset: number, length: number): boolean;
  ioFindData(engine: number, id: number, fd: number, length: number, ranges: Float64Array): boolean;
  ioPunch(engine: number, id: number, fd: number, offset: number, length: number): boolean;
}

const native = (): IoFunctions => addon();

/**
 * `threads`: 1 to 16; they start with the first operation. `capacity`: the most operations that were submitted and whose
 * completions were not taken, 1 to 65536.
 */
export const createIoEngine = (threads = 4, capacity = 512): IoEngine => native().ioCreate(threads, capacity);

/** A disk that hangs keeps no machine from ending for longer. */
const CLOSE_MS = 5000;

/**
 * Waits for the operations that run, and ends the threads. Operations that have not begun are dropped: a caller that
 * needs them takes their completions first. False: an operation still runs after `timeoutMs`, since its file does not
 * respond. The descriptors of the operations must then stay open, and the call may be repeated. True for an engine that
 * is closed.
 */
export const closeIoEngine = (engine: IoEngine, timeoutMs = CLOSE_MS): boolean =>
  native().ioClose(engine, timeoutMs);

/**
 * An eventfd(2) that is readable while completions wait. Only {@link takeCompletions} reads it. It is closed with the
 * engine, so a caller that watches it stops before that.
 */
export const ioEngineFd = (engine: IoEngine): number => native().ioFd(engine);

/**
 * Fills `into` with completions, each a pair of id and result, and returns their number. A result is 0 or a positive
 * errno. Completions that do not fit stay, and {@link ioEngineFd} stays readable. One thread at a time.
 */
export const takeCompletions = (engine: IoEngine, into: Int32Array): number => native().ioTake(engine, into);

/** Blocks until a completion waits; false after `timeoutMs` without one (−1: no limit). For threads that may block. */
export const waitForCompletion = (engine: IoEngine, timeoutMs: number): boolean =>
  native().ioWait(engine, timeoutMs);

/** Reads a file from `offset` on. Bytes after its end read as zeros. */
export const submitRead = (
  engine: IoEngine,
  id: number,
  fd: number,
  offset: number,
  ranges: Float64Array,
): boolean => native().ioRead(engine, id, fd, offset, ranges);

/** Writes all bytes of the ranges to a file from `offset` on. After an error any part of them may be written. */
export const submitWrite = (
  engine: IoEngine,
  id: number,
  fd: number,
  offset: number,
  ranges: Float64Array,
): boolean => native().ioWrite(engine, id, fd, offset, ranges);

/**
 * Reads bytes of a stored region, verified (region-reader.ts). Bytes after its end read as zeros. Results: those of
 * {@link import('./region-reader.js').readRegion}. After an error the ranges may have been changed in part.
 */
export const submitStoreRead = (
  engine: IoEngine,
  id: number,
  reader: RegionReader,
  offset: number,
  ranges: Float64Array,
): boolean => native().ioStoreRead(engine, id, reader, offset, ranges);

/** Sets the bytes of the ranges to zero. */
export const submitZeroMemory = (engine: IoEngine, id: number, ranges: Float64Array): boolean =>
  native().ioZeroMemory(engine, id, ranges);

/** Copies `length` bytes from one file to another. Bytes after the end of the first are copied as zeros. */
export const submitCopy = (
  engine: IoEngine,
  id: number,
  from: { fd: number; offset: number },
  to: { fd: number; offset: number },
  length: number,
): boolean => native().ioCopy(engine, id, from.fd, from.offset, to.fd, to.offset, length);

/** Copies `length` bytes of a stored region, verified, to a file. Results: as of {@link submitStoreRead}. */
export const submitStoreCopy = (
  engine: IoEngine,
  id: number,
  from: { reader: RegionReader; offset: number },
  to: { fd: number; offset: number },
  length: number,
): boolean => native().ioStoreCopy(engine, id, from.reader, from.offset, to.fd, to.offset, length);

/** Makes what was written before it was submitted durable (fdatasync(2)). */
export const submitSync = (engine: IoEngine, id: number, fd: number): boolean =>
  native().ioSync(engine, id, fd);

/** Allocates blocks of a file without changing its size or data (fallocate(2)). EOPNOTSUPP is a result. */
export const submitAllocate = (
  engine: IoEngine,
  id: number,
  fd: number,
  offset: number,
  length: number,
): boolean => native().ioAllocate(engine, id, fd, offset, length);

/**
 * Sets the bit of each block of 4096 bytes, of the file's first `length`, that may hold data, in a range that is zero
 * before. In each byte the lowest bit comes first.
 */
export const submitFindData = (
  engine: IoEngine,
  id: number,
  fd: number,
  length: number,
  ranges: Float64Array,
): boolean => native().ioFindData(engine, id, fd, length, ranges);

/** Frees blocks of a file; they read as zeros (fallocate(2), FALLOC_FL_PUNCH_HOLE). EOPNOTSUPP is a result. */
export const submitPunch = (
  engine: IoEngine,
  id: number,
  fd: number,
  offset: number,
  length: number,
): boolean => native().ioPunch(engine, id, fd, offset, length);
