/**
 * A block device: virtio 1.2, section 5.2. Requests go to a {@link Disk}, whose bytes the I/O engine moves straight from
 * and to guest memory.
 *
 * Thread: the device thread.
 *
 * Invariants:
 * - The pages that a request wrote are marked before its used entry is published, also when it failed.
 * - A request that fails because of the host keeps its place, and the machine is paused. It is tried again when the
 *   machine is resumed. With `on-error=report` the guest gets an I/O error instead.
 * - Work is bounded: no further request is begun while those that are worked on have {@link MAX_WORKING_BYTES} or more.
 * - A request stays in flight while it waits, so a save has it, and the restored machine does it.
 *
 * Not emulated: several queues, secure erase, zoned disks, a write cache that the driver turns off.
 */
import type { DeviceParts, DeviceState } from '../devices/device.js';
import { deviceState } from '../devices/device-state.js';
import type { MemoryRange } from '../disk/block-io.js';
import type { Disk, DiskFailure } from '../disk/disk.js';
import { BLOCK_BYTES, SECTOR_BYTES } from '../disk/disk-setup.js';
import {
  type Action,
  type BlockRequest,
  MAX_SEGMENT_SECTORS,
  MAX_SEGMENTS,
  readRequest,
  Status,
} from './block-request.js';
import type { GuestRange } from './descriptor-chain.js';
import type { SplitQueue } from './split-queue.js';
import { DeviceType, type VirtioDescriptor, type VirtioDevice, type VirtioLink } from './virtio-device.js';

const Feature = {
  SEG_MAX: 1n << 2n,
  RO: 1n << 5n,
  BLK_SIZE: 1n << 6n,
  FLUSH: 1n << 9n,
  TOPOLOGY: 1n << 10n,
  DISCARD: 1n << 13n,
  WRITE_ZEROES: 1n << 14n,
} as const;

const QUEUE_SIZE = 256;
/** A chain without an indirect table has two descriptors more: header and status. */
const SEG_MAX = QUEUE_SIZE - 2;

/** Drivers stay below, except for discards. One request may have more. */
const MAX_WORKING_BYTES = 1 << 28;

const CONFIG_BYTES = 60;
const ID_BYTES = 20;
/** The most lines that a device writes to the log, so that a guest cannot fill it. */
const MAX_LOG_LINES = 100;

export interface BlockState extends DeviceState {
  readonly device: 'virtio-block';
  readonly version: 1;
}

/** What a block device belongs to. */
export interface BlockParts {
  readonly disk: Disk;
  readonly onError: 'pause' | 'report';
  /** A request of the guest waits for the host, and the machine must be paused. `problem` is a sentence. */
  onStall(problem: string): void;
}

/** struct virtio_blk_config (section 5.2.4). */
function configOf({ sizeBytes }: Disk): Uint8Array {
  const config = Buffer.alloc(CONFIG_BYTES);
  const blockSectors = BLOCK_BYTES / SECTOR_BYTES;
  config.writeBigUInt64LE(BigInt(sizeBytes / SECTOR_BYTES), 0); // capacity
  config.writeUInt32LE(SEG_MAX, 12);
  config.writeUInt32LE(SECTOR_BYTES, 20); // blk_size
  config.writeUInt8(Math.log2(blockSectors), 24); // topology.physical_block_exp
  config.writeUInt16LE(blockSectors, 26); // topology.min_io_size
  config.writeUInt16LE(1, 34); // num_queues
  config.writeUInt32LE(MAX_SEGMENT_SECTORS, 36); // max_discard_sectors
  config.writeUInt32LE(MAX_SEGMENTS, 40); // max_discard_seg
  config.writeUInt32LE(blockSectors, 44); // discard_sector_alignment
  config.writeUInt32LE(MAX_SEGMENT_SECTORS, 48); // max_write_zeroes_sectors
  config.writeUInt32LE(MAX_SEGMENTS, 52); // max_write_zeroes_seg
  config.writeUInt8(1, 56); // write_zeroes_may_unmap
  return config;
}

/** The bytes of the disk that a request reads or changes. */
function bytesOf(action: Action): number {
  switch (action.kind) {
    case 'read':
      return sum(action.into);
    case 'write':
      return sum(action.from);
    case 'zero':
      return sum(action.ranges);
    default:
      return 0;
  }
}

const sum = (ranges: readonly { readonly length: number }[]): number =>
  ranges.reduce((total, { length }) => total + length, 0);

export class VirtioBlock implements VirtioDevice<BlockState> {
  readonly deviceType = DeviceType.block;
  readonly features: bigint;
  readonly queueSizes = [QUEUE_SIZE];
  readonly config: Uint8Array;
  readonly #parts: DeviceParts;
  readonly #link: VirtioLink;
  readonly #block: BlockParts;
  #queue: SplitQueue | null = null;
  /** Requests that the disk works on. */
  #working = 0;
  #workingBytes = 0;
  /** Requests that failed because of the host, in their order. */
  readonly #stalled: BlockRequest[] = [];
  /** Called when nothing is worked on any more; set while the device is being reset. */
  #onReset: (() => void) | null = null;
  #logLines = 0;
  #lastLine = '';

  constructor(parts: DeviceParts, link: VirtioLink, block: BlockParts) {
    const { SEG_MAX, RO, BLK_SIZE, FLUSH, TOPOLOGY, DISCARD, WRITE_ZEROES } = Feature;
    this.#parts = parts;
    this.#link = link;
    this.#block = block;
    this.features =
      SEG_MAX | BLK_SIZE | FLUSH | TOPOLOGY | (block.disk.readOnly ? RO : DISCARD | WRITE_ZEROES);
    this.config = configOf(block.disk);
  }

  activate([queue]: readonly SplitQueue[]): void {
    this.#queue = queue!;
  }

  notify(): void {
    this.publish();
  }

  /** Tries again what the host failed. Not before: the machine may run on for long until a save lets it be paused. */
  resumed(): void {
    for (const request of this.#stalled.splice(0)) this.#begin(request);
  }

  /** Begins further requests, and tells the driver of those that have ended. To be called after I/O completions. */
  publish(): void {
    this.#beginNext();
    this.#queue?.flush();
  }

  #beginNext(): void {
    while (this.#workingBytes < MAX_WORKING_BYTES) {
      const chain = this.#queue?.pop();
      if (!chain) return;
      const request = readRequest(this.#parts.memory, chain, this.#block.disk);
      if (request === null) {
        this.#link.fail('offered a block request without a whole header or without room for its status');
        return;
      }
      this.#begin(request);
    }
  }

  reset(done: () => void): void {
    this.#stalled.length = 0;
    this.#onReset = () => {
      this.#onReset = null;
      this.#queue = null;
      done();
    };
    this.#resetIfIdle();
  }

  save(): BlockState {
    return { device: 'virtio-block', version: 1 };
  }

  #begin(request: BlockRequest): void {
    const { disk } = this.#block;
    const { action } = request;
    this.#working++;
    this.#workingBytes += bytesOf(action);
    const done = (failure: DiskFailure | null): void => this.#ended(request, failure);
    switch (action.kind) {
      case 'read':
        disk.read(action.offset, this.#locate(action.into), done);
        break;
      case 'write':
        disk.write(action.offset, this.#locate(action.from), done);
        break;
      case 'flush':
        disk.flush(done);
        break;
      case 'zero': {
        let left = action.ranges.length;
        let first: DiskFailure | null = null;
        for (const { offset, length } of action.ranges)
          disk.zero(offset, length, action.unmap, (failure) => {
            first ??= failure;
            if (--left === 0) done(first);
          });
        break;
      }
      case 'getId':
        this.#writeId(action.into);
        done(null);
        break;
      case 'refuse':
        done(null);
        break;
    }
  }

  #ended(request: BlockRequest, failure: DiskFailure | null): void {
    const { action } = request;
    this.#working--;
    this.#workingBytes -= bytesOf(action);
    if (action.kind === 'read')
      for (const { gpa, length } of action.into) this.#parts.memory.markWritten(gpa, length);
    if (this.#onReset !== null) {
      this.#resetIfIdle();
      return;
    }
    if (failure === null) {
      this.#answer(request, action.kind === 'refuse' ? action.status : Status.ok);
      return;
    }
    const { disk, onError, onStall } = this.#block;
    const problem = `${disk.name} ${failure.what}`;
    this.#log(problem);
    if (onError === 'report') this.#answer(request, Status.ioError);
    else {
      this.#stalled.push(request);
      onStall(problem);
    }
  }

  #answer({ head, statusGpa, dataBytes, action }: BlockRequest, status: Status): void {
    this.#parts.memory.write(statusGpa, Uint8Array.of(status));
    // The status is the last byte, so everything before it counts as written.
    const { kind } = action;
    const isFilled = status === Status.ok && (kind === 'read' || (kind === 'getId' && dataBytes <= ID_BYTES));
    this.#queue?.complete(head, isFilled ? dataBytes + 1 : 1);
  }

  #writeId(into: readonly GuestRange[]): void {
    const id = Buffer.alloc(ID_BYTES);
    id.write(this.#block.disk.name, 'latin1');
    let at = 0;
    for (const { gpa, length } of into) {
      const part = id.subarray(at, at + length);
      this.#parts.memory.write(gpa, part);
      at += part.length;
    }
  }

  #locate(ranges: readonly GuestRange[]): MemoryRange[] {
    return ranges.map(({ gpa, length }) => ({ ...this.#parts.memory.locate(gpa, length), length }));
  }

  #resetIfIdle(): void {
    if (this.#working === 0) this.#onReset?.();
  }

  #log(line: string): void {
    if (line === this.#lastLine || this.#logLines === MAX_LOG_LINES) return;
    this.#lastLine = line;
    this.#logLines++;
    this.#parts.log(line);
    if (this.#logLines === MAX_LOG_LINES)
      this.#parts.log(`further errors of ${this.#block.disk.name} are not logged`);
  }
}

/** A block device of a machine, named after its disk. */
export const virtioBlock = (block: BlockParts): VirtioDescriptor<VirtioBlock, BlockState> => ({
  name: block.disk.name,
  state: deviceState('virtio-block', 1, {}),
  create: (parts, link) => new VirtioBlock(parts, link, block),
  restore: (parts, link) => new VirtioBlock(parts, link, block),
});
