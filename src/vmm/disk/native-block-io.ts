/**
 * The native I/O engine as a {@link BlockIo}: numbers operations, and queues those that a full engine refuses.
 *
 * Thread: the device thread, which calls {@link NativeBlockIo.drain} when the engine's descriptor is readable.
 */
import {
  closeIoEngine,
  type IoEngine,
  ioEngineFd,
  submitAllocate,
  submitCopy,
  submitFindData,
  submitPunch,
  submitRead,
  submitStoreCopy,
  submitStoreRead,
  submitSync,
  submitWrite,
  submitZeroMemory,
  takeCompletions,
} from '../../native/block-io.js';
import type { BlockIo, FilePlace, IoDone, MemoryRange, StorePlace } from './block-io.js';

/** How many completions are taken at once. */
const TAKEN_AT_ONCE = 64;

type Submit = (id: number) => boolean;

export class NativeBlockIo implements BlockIo {
  readonly #engine: IoEngine;
  readonly #running = new Map<number, IoDone>();
  /** Operations that the full engine refused, oldest first. */
  readonly #waiting: { submit: Submit; done: IoDone }[] = [];
  readonly #completions = new Int32Array(2 * TAKEN_AT_ONCE);
  #lastId = 0;

  constructor(engine: IoEngine) {
    this.#engine = engine;
  }

  /** Readable while completions wait. */
  get fd(): number {
    return ioEngineFd(this.#engine);
  }

  /** Calls back for what has completed. */
  drain(): void {
    for (;;) {
      const count = takeCompletions(this.#engine, this.#completions);
      if (count === 0) return;
      // A callback may drain in turn, so the completions are copied.
      for (const [id, errno] of pairs(this.#completions, count)) {
        const done = this.#running.get(id)!;
        this.#running.delete(id);
        done(errno);
      }
      this.#submitWaiting();
    }
  }

  /** Waits for what runs; nothing calls back any more. False: something hangs, and the wait was given up. */
  close(): boolean {
    this.#waiting.length = 0;
    this.#running.clear();
    return closeIoEngine(this.#engine);
  }

  read({ fd, offset }: FilePlace, ranges: readonly MemoryRange[], done: IoDone): void {
    const flat = flatten(ranges);
    this.#start((id) => submitRead(this.#engine, id, fd, offset, flat), done);
  }

  write({ fd, offset }: FilePlace, ranges: readonly MemoryRange[], done: IoDone): void {
    const flat = flatten(ranges);
    this.#start((id) => submitWrite(this.#engine, id, fd, offset, flat), done);
  }

  readStore({ reader, offset }: StorePlace, ranges: readonly MemoryRange[], done: IoDone): void {
    const flat = flatten(ranges);
    this.#start((id) => submitStoreRead(this.#engine, id, reader, offset, flat), done);
  }

  zeroMemory(ranges: readonly MemoryRange[], done: IoDone): void {
    const flat = flatten(ranges);
    this.#start((id) => submitZeroMemory(this.#engine, id, flat), done);
  }

  copy(from: FilePlace, to: FilePlace, length: number, done: IoDone): void {
    this.#start((id) => submitCopy(this.#engine, id, from, to, length), done);
  }

  copyFromStore(from: StorePlace, to: FilePlace, length: number, done: IoDone): void {
    this.#start((id) => submitStoreCopy(this.#engine, id, from, to, length), done);
  }

  sync(fd: number, done: IoDone): void {
    this.#start((id) => submitSync(this.#engine, id, fd), done);
  }

  allocate({ fd, offset }: FilePlace, length: number, done: IoDone): void {
    this.#start((id) => submitAllocate(this.#engine, id, fd, offset, length), done);
  }

  findData(fd: number, length: number, bits: MemoryRange, done: IoDone): void {
    const flat = flatten([bits]);
    this.#start((id) => submitFindData(this.#engine, id, fd, length, flat), done);
  }

  punch({ fd, offset }: FilePlace, length: number, done: IoDone): void {
    this.#start((id) => submitPunch(this.#engine, id, fd, offset, length), done);
  }

  #start(submit: Submit, done: IoDone): void {
    if (this.#waiting.length > 0 || !this.#submit(submit, done)) this.#waiting.push({ submit, done });
  }

  #submitWaiting(): void {
    let submitted = 0;
    for (const { submit, done } of this.#waiting) {
      if (!this.#submit(submit, done)) break;
      submitted++;
    }
    this.#waiting.splice(0, submitted);
  }

  #submit(submit: Submit, done: IoDone): boolean {
    const id = this.#newId();
    if (!submit(id)) return false;
    this.#running.set(id, done);
    return true;
  }

  #newId(): number {
    do this.#lastId = (this.#lastId + 1) & 0x7fffffff;
    while (this.#running.has(this.#lastId));
    return this.#lastId;
  }
}

const pairs = (flat: Int32Array, count: number): [number, number][] =>
  Array.from({ length: count }, (_, i) => [flat[2 * i]!, flat[2 * i + 1]!]);

/** As triples of memory, offset and length. */
function flatten(ranges: readonly MemoryRange[]): Float64Array {
  const flat = new Float64Array(ranges.length * 3);
  ranges.forEach(({ memory, offset, length }, i) => {
    flat.set([memory, offset, length], i * 3);
  });
  return flat;
}
