/**
 * A disk with a guest, a model and saves, for tests of the rules that keep data: the guest's requests are disjoint, so
 * the model always knows what each sector must hold.
 */
import assert from 'node:assert/strict';
import { BitSet } from '../../../../src/bit-set.js';
import { closeMemory, createMemory, readMemory, writeMemory } from '../../../../src/native/memory.js';
import { PAGE_BYTES } from '../../../../src/page-stream.js';
import type { BlockIo } from '../../../../src/vmm/disk/block-io.js';
import { Disk, type DiskDone } from '../../../../src/vmm/disk/disk.js';
import { BLOCK_BYTES, blocksOf, type DiskBase, SECTOR_BYTES } from '../../../../src/vmm/disk/disk-setup.js';
import { SharedBits } from '../../../../src/vmm/memory/shared-bits.js';

/** Where the files of a disk are. */
export interface Backend {
  readonly io: BlockIo;
  addFile(bytes: Buffer): number;
  /** Null: the backend has no stores, and uses a file instead. */
  addStore(bytes: Buffer): number | null;
  closeFile(fd: number): void;
  /** Lets some I/O happen. */
  step(random: () => number): void;
  close(): void;
}

export interface GuestOperation {
  readonly kind: 'read' | 'write' | 'discard' | 'zero' | 'flush';
  readonly sector: number;
  readonly sectors: number;
  /** What a write writes. */
  readonly value: number;
}

export interface Save {
  /** Requests in flight before the moment, and while the frozen blocks are read. */
  readonly before: readonly GuestOperation[];
  readonly after: readonly GuestOperation[];
  /** How many steps of I/O pass before the moment. */
  readonly stepsBefore: number;
  readonly fails: boolean;
  readonly full: boolean;
}

interface InFlight {
  readonly operation: GuestOperation;
  isDone: boolean;
}

interface Snapshot {
  readonly bytes: Buffer;
  /** The requests that the snapshot has as unfinished. */
  readonly heads: readonly GuestOperation[];
  readonly model: Buffer;
}

const GUEST_BYTES = 1 << 20;
const MEMORY_BLOCKS = 3;

export class DiskRig {
  readonly blocks: number;
  disk!: Disk;
  /** What the guest has written and was told so. */
  model: Buffer;
  snapshot: Snapshot | null = null;
  readonly #guest = createMemory(GUEST_BYTES);
  readonly #zeros = createMemory(16384);
  readonly #staging = createMemory(64 * BLOCK_BYTES);
  #written!: SharedArrayBuffer;
  #sinceSave!: BitSet;
  #guestUsed = 0;

  constructor(
    readonly backend: Backend,
    readonly sizeBytes: number,
    readonly kind: 'raw' | 'cow' | 'store' | 'zeros',
    readonly random: () => number,
  ) {
    this.blocks = blocksOf(sizeBytes);
    this.model = Buffer.alloc(sizeBytes);
    if (kind !== 'zeros') for (let i = 0; i < sizeBytes; i++) this.model[i] = (i >>> 9) % 251;
    this.#attach(kind, Buffer.from(this.model));
  }

  #attach(kind: DiskRig['kind'], bytes: Buffer): void {
    const reader = kind === 'store' ? this.backend.addStore(bytes) : null;
    const base: DiskBase =
      kind === 'zeros'
        ? { kind: 'zeros' }
        : reader === null
          ? { kind: 'file', fd: this.backend.addFile(bytes) }
          : { kind: 'store', reader, name: 'test:disk0' };
    this.#written = SharedBits.allocate(this.blocks);
    this.#sinceSave = new BitSet(this.blocks);
    this.disk = new Disk(
      {
        name: 'disk0',
        sizeBytes: this.sizeBytes,
        readOnly: false,
        onError: 'pause',
        base,
        overlay:
          kind === 'raw'
            ? null
            : {
                fd: this.backend.addFile(Buffer.alloc(0)),
                present: SharedBits.allocate(this.blocks),
                reserveBytes: 0,
              },
        written: this.#written,
        scratchDir: '/tmp',
      },
      {
        io: this.backend.io,
        zeros: { memory: this.#zeros, sizeBytes: 16384 },
        scratch: {
          memoryBlocks: MEMORY_BLOCKS,
          openFile: () => this.openScratch(),
          closeFile: (fd) => this.backend.closeFile(fd),
        },
        freeBytes: () => Number.POSITIVE_INFINITY,
      },
    );
  }

  /** Replaced by tests that let it fail. */
  openScratch: () => number = () => this.backend.addFile(Buffer.alloc(0));

  close(): void {
    this.disk.thaw();
    this.backend.close();
    for (const memory of [this.#guest, this.#zeros, this.#staging]) closeMemory(memory);
  }

  /** Starts a request and repeats it until it succeeds, unless it is a flush. The model changes when it has. */
  start(operation: GuestOperation): InFlight {
    const inFlight: InFlight = { operation, isDone: false };
    const offset = operation.sector * SECTOR_BYTES;
    const length = operation.sectors * SECTOR_BYTES;
    if (this.#guestUsed + length > GUEST_BYTES) this.#guestUsed = 0;
    const at = this.#guestUsed;
    this.#guestUsed += length;
    // Two ranges, so that requests are split at any byte.
    const cut = Math.min(700, length - 1);
    const ranges = [
      { memory: this.#guest, offset: at, length: cut },
      { memory: this.#guest, offset: at + cut, length: length - cut },
    ];
    if (operation.kind === 'write') writeMemory(this.#guest, at, Buffer.alloc(length, operation.value));
    const done: DiskDone = (failure) => {
      // A flush that failed never succeeds again.
      if (failure !== null && operation.kind !== 'flush') {
        issue();
        return;
      }
      inFlight.isDone = true;
      if (operation.kind === 'read') {
        const bytes = Buffer.alloc(length);
        readMemory(this.#guest, at, bytes);
        assertSame(
          bytes,
          this.model.subarray(offset, offset + length),
          `a read of sector ${operation.sector}`,
        );
      } else if (operation.kind !== 'flush')
        this.model.fill(operation.kind === 'write' ? operation.value : 0, offset, offset + length);
    };
    const issue = (): void => {
      if (operation.kind === 'read') this.disk.read(offset, ranges, done);
      else if (operation.kind === 'write') this.disk.write(offset, ranges, done);
      else if (operation.kind === 'flush') this.disk.flush(done);
      else this.disk.zero(offset, length, operation.kind === 'discard', done);
    };
    issue();
    return inFlight;
  }

  /** Begins again with a disk of the same kind that has the bytes of the model and no overlay. */
  detach(): void {
    this.#attach(this.kind, Buffer.from(this.model));
  }

  step(): void {
    this.backend.step(this.random);
  }

  finish(inFlight: readonly InFlight[]): void {
    while (inFlight.some(({ isDone }) => !isDone)) this.step();
  }

  run(operations: readonly GuestOperation[]): void {
    this.finish(operations.map((operation) => this.start(operation)));
  }

  /** The whole disk as the guest reads it. */
  check(): void {
    const step = 16;
    const sectors = this.sizeBytes / SECTOR_BYTES;
    for (let sector = 0; sector < sectors; sector += step)
      this.run([{ kind: 'read', sector, sectors: Math.min(step, sectors - sector), value: 0 }]);
  }

  #harvest(): BitSet {
    const dirty = new BitSet(this.blocks);
    new SharedBits(this.#written).moveTo(dirty);
    this.#sinceSave.addAll(dirty);
    return dirty;
  }

  /** Reads blocks as a save does, into `image`. Null or what failed. */
  #readInto(image: Buffer, blocks: readonly number[]): string | null {
    for (let at = 0; at < blocks.length; at += 8) {
      const batch = Uint32Array.from(blocks.slice(at, at + 8));
      let result: string | null | undefined;
      this.disk.readBlocks(batch, this.#staging, (failure) => {
        result = failure === null ? null : failure.what;
      });
      while (result === undefined) this.step();
      if (result !== null) return result;
      batch.forEach((block, i) => {
        const bytes = Buffer.alloc(Math.min(BLOCK_BYTES, this.sizeBytes - block * BLOCK_BYTES));
        readMemory(this.#staging, i * BLOCK_BYTES, bytes);
        bytes.copy(image, block * PAGE_BYTES);
      });
    }
    return null;
  }

  /** Saves while the guest writes. Checks that the snapshot is of its moment. Returns whether it was committed. */
  save({ before, after, stepsBefore, fails, full }: Save): boolean {
    this.#harvest();
    const isFull = full || this.snapshot === null;
    const image = isFull ? Buffer.alloc(this.sizeBytes) : Buffer.from(this.snapshot!.bytes);
    const pending = isFull ? Array.from({ length: this.blocks }, (_, i) => i) : [...this.#sinceSave];
    const inFlight = before.map((operation) => this.start(operation));
    let failure = this.#readInto(image, pending);
    for (let i = 0; i < stepsBefore; i++) this.step();
    // The moment. Completions that wait are still the guest's future.
    const frozen = this.#harvest();
    const atMoment = Buffer.from(this.model);
    const heads = inFlight.filter(({ isDone }) => !isDone).map(({ operation }) => operation);
    const copy = new BitSet(this.blocks);
    copy.addAll(frozen);
    this.disk.freeze(copy);
    this.finish(inFlight);
    const later = after.map((operation) => this.start(operation));
    for (let i = this.random() * 20; i > 0; i--) this.step();
    failure ??= this.#readInto(image, [...frozen]);
    this.disk.thaw();
    this.finish(later);
    if (failure !== null || fails) return false;
    // Sectors of unfinished requests are written again after a restore.
    const again = Buffer.from(image);
    for (const { kind, sector, sectors, value } of heads)
      if (kind === 'write' || kind === 'discard' || kind === 'zero') {
        const fill = kind === 'write' ? value : 0;
        again.fill(fill, sector * SECTOR_BYTES, (sector + sectors) * SECTOR_BYTES);
        atMoment.fill(fill, sector * SECTOR_BYTES, (sector + sectors) * SECTOR_BYTES);
      }
    assertSame(again, atMoment, 'the snapshot');
    this.snapshot = { bytes: image, heads, model: atMoment };
    this.#sinceSave.clear();
    return true;
  }

  /** Continues from the last snapshot, on a disk whose base is the store, and repeats its unfinished requests. */
  restore(): void {
    if (this.snapshot === null) return;
    const { bytes, heads, model } = this.snapshot;
    this.#attach('store', Buffer.from(bytes));
    this.model = Buffer.from(model);
    this.run(heads.filter(({ kind }) => kind !== 'read'));
  }
}

function assertSame(found: Buffer, expected: Buffer, what: string): void {
  if (found.equals(expected)) return;
  const at = found.findIndex((byte, i) => byte !== expected[i]);
  assert.fail(
    `${what} has ${found[at]}, not ${expected[at]}, at byte ${at} (sector ${Math.floor(at / SECTOR_BYTES)})`,
  );
}
