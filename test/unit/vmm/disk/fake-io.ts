/**
 * An I/O engine for tests: files and stored regions are buffers. Operations wait until {@link FakeIo.step} runs one, in
 * any order, and call back in a later step.
 */
import { constants } from 'node:os';
import { BitSet } from '../../../../src/bit-set.js';
import { readMemory, writeMemory } from '../../../../src/native/memory.js';
import type {
  BlockIo,
  FilePlace,
  IoDone,
  MemoryRange,
  StorePlace,
} from '../../../../src/vmm/disk/block-io.js';

const { EOPNOTSUPP } = constants.errno;

export type Operation =
  | 'read'
  | 'write'
  | 'readStore'
  | 'copy'
  | 'copyFromStore'
  | 'sync'
  | 'allocate'
  | 'findData'
  | 'punch'
  | 'zeroMemory';

interface Waiting {
  readonly name: Operation;
  readonly fd: number;
  readonly run: () => void;
  readonly done: IoDone;
}

export class FakeIo implements BlockIo {
  readonly files = new Map<number, Buffer>();
  readonly stores = new Map<number, Buffer>();
  /** Chooses the errno of an operation before it runs; 0: it succeeds. */
  fault: (name: Operation, fd: number) => number = () => 0;
  canPunch = true;
  /** How many operations of each name ran. */
  readonly counts: Partial<Record<Operation, number>> = {};
  readonly #waiting: Waiting[] = [];
  readonly #finished: { done: IoDone; errno: number }[] = [];
  #lastNumber = 100;

  addFile(bytes: Buffer): number {
    this.files.set(++this.#lastNumber, bytes);
    return this.#lastNumber;
  }

  addStore(bytes: Buffer): number {
    this.stores.set(++this.#lastNumber, bytes);
    return this.#lastNumber;
  }

  get isIdle(): boolean {
    return this.#waiting.length + this.#finished.length === 0;
  }

  /** Runs one operation or calls back for one. `random` is from 0 to below 1. */
  step(random: () => number): void {
    if (this.#finished.length > 0 && (this.#waiting.length === 0 || random() < 0.5)) {
      const { done, errno } = this.#finished.splice(Math.floor(random() * this.#finished.length), 1)[0]!;
      done(errno);
      return;
    }
    const [operation] = this.#waiting.splice(Math.floor(random() * this.#waiting.length), 1);
    if (!operation) return;
    const { name, fd, run, done } = operation;
    this.counts[name] = (this.counts[name] ?? 0) + 1;
    const errno = this.fault(name, fd);
    // A failed write may have written all of its bytes.
    if (errno === 0 || (name === 'write' && random() < 0.5)) run();
    this.#finished.push({ done, errno });
  }

  /** Steps until nothing is left. */
  settle(random: () => number = () => 0): void {
    while (!this.isIdle) this.step(random);
  }

  read({ fd, offset }: FilePlace, ranges: readonly MemoryRange[], done: IoDone): void {
    this.#add('read', fd, done, () => this.#toMemory(this.#file(fd), offset, ranges));
  }

  readStore({ reader, offset }: StorePlace, ranges: readonly MemoryRange[], done: IoDone): void {
    this.#add('readStore', reader, done, () => this.#toMemory(this.stores.get(reader)!, offset, ranges));
  }

  write({ fd, offset }: FilePlace, ranges: readonly MemoryRange[], done: IoDone): void {
    this.#add('write', fd, done, () => {
      let at = offset;
      for (const { memory, offset: from, length } of ranges) {
        const bytes = new Uint8Array(length);
        readMemory(memory, from, bytes);
        this.#toFile(fd, at, bytes);
        at += length;
      }
    });
  }

  zeroMemory(ranges: readonly MemoryRange[], done: IoDone): void {
    this.#add('zeroMemory', -1, done, () => this.#toMemory(Buffer.alloc(0), 0, ranges));
  }

  copy(from: FilePlace, to: FilePlace, length: number, done: IoDone): void {
    this.#add('copy', to.fd, done, () =>
      this.#toFile(to.fd, to.offset, padded(this.#file(from.fd), from.offset, length)),
    );
  }

  copyFromStore(from: StorePlace, to: FilePlace, length: number, done: IoDone): void {
    this.#add('copyFromStore', to.fd, done, () =>
      this.#toFile(to.fd, to.offset, padded(this.stores.get(from.reader)!, from.offset, length)),
    );
  }

  sync(fd: number, done: IoDone): void {
    this.#add('sync', fd, done, () => {});
  }

  allocate({ fd }: FilePlace, _length: number, done: IoDone): void {
    this.#add('allocate', fd, done, () => {});
  }

  findData(fd: number, length: number, bits: MemoryRange, done: IoDone): void {
    this.#add('findData', fd, done, () => {
      const found = new BitSet(bits.length * 8);
      for (let block = 0; block * 4096 < length; block++)
        if (padded(this.#file(fd), block * 4096, 4096).some((byte) => byte !== 0)) found.add(block);
      writeMemory(bits.memory, bits.offset, found.bytes.subarray(0, bits.length));
    });
  }

  punch({ fd, offset }: FilePlace, length: number, done: IoDone): void {
    if (!this.canPunch)
      this.#waiting.push({ name: 'punch', fd, run: () => {}, done: () => done(EOPNOTSUPP) });
    else
      this.#add('punch', fd, done, () => {
        const file = this.#file(fd);
        file.fill(0, offset, Math.min(offset + length, file.length));
      });
  }

  #add(name: Operation, fd: number, done: IoDone, run: () => void): void {
    this.#waiting.push({ name, fd, run, done });
  }

  #file(fd: number): Buffer {
    const file = this.files.get(fd);
    if (!file) throw new Error(`descriptor ${fd} is closed`);
    return file;
  }

  #toFile(fd: number, offset: number, bytes: Uint8Array): void {
    let file = this.#file(fd);
    if (file.length < offset + bytes.length) {
      file = Buffer.concat([file, Buffer.alloc(offset + bytes.length - file.length)]);
      this.files.set(fd, file);
    }
    file.set(bytes, offset);
  }

  #toMemory(bytes: Buffer, offset: number, ranges: readonly MemoryRange[]): void {
    let at = offset;
    for (const range of ranges) {
      writeMemory(range.memory, range.offset, padded(bytes, at, range.length));
      at += range.length;
    }
  }
}

function padded(bytes: Buffer, offset: number, length: number): Uint8Array {
  const part = new Uint8Array(length);
  if (offset < bytes.length) part.set(bytes.subarray(offset, Math.min(offset + length, bytes.length)));
  return part;
}
