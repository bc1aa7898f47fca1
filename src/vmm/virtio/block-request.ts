/**
 * The requests of a virtio block device: virtio 1.2, section 5.2.6. They are read and checked here, and done elsewhere.
 *
 * Thread: the device thread.
 *
 * Invariants:
 * - A request is copied once and then checked, because the guest may change it at any time.
 * - A range that is returned lies on the disk.
 */
import { SECTOR_BYTES } from '../disk/disk-setup.js';
import type { DmaMemory } from '../memory/guest-memory.js';
import type { Chain, GuestRange } from './descriptor-chain.js';

/** The last byte of a request, which the device writes. */
export const Status = { ok: 0, ioError: 1, unsupported: 2 } as const;
export type Status = (typeof Status)[keyof typeof Status];

const RequestType = { in: 0, out: 1, flush: 4, getId: 8, discard: 11, writeZeroes: 13 } as const;

/** The most bytes of one request, so that its work is bounded. Drivers stay far below. */
const MAX_REQUEST_BYTES = 1 << 28;
const HEADER_BYTES = 16;
const SEGMENT_BYTES = 16;
/** VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP. */
const UNMAP = 1;

/** The most segments of a discard or write-zeroes request. */
export const MAX_SEGMENTS = 32;
/** The most sectors of one segment: 64 MiB. */
export const MAX_SEGMENT_SECTORS = 1 << 17;

/** Bytes of the disk. */
export interface DiskRange {
  readonly offset: number;
  readonly length: number;
}

export type Action =
  | { readonly kind: 'read'; readonly offset: number; readonly into: readonly GuestRange[] }
  | { readonly kind: 'write'; readonly offset: number; readonly from: readonly GuestRange[] }
  | { readonly kind: 'zero'; readonly ranges: readonly DiskRange[]; readonly unmap: boolean }
  | { readonly kind: 'flush' }
  | { readonly kind: 'getId'; readonly into: readonly GuestRange[] }
  /** Answered with the status alone. */
  | { readonly kind: 'refuse'; readonly status: Status };

export interface BlockRequest {
  readonly head: number;
  /** Where the status byte goes. */
  readonly statusGpa: number;
  /** Bytes of the writable ranges before the status byte. */
  readonly dataBytes: number;
  readonly action: Action;
}

const refuse = (status: Status): Action => ({ kind: 'refuse', status });

/** Null: the chain has no room for a status byte or no whole header, so it cannot be answered. */
export function readRequest(
  memory: DmaMemory,
  { head, readable, writable }: Chain,
  disk: { readonly sizeBytes: number; readonly readOnly: boolean },
): BlockRequest | null {
  const header = Buffer.alloc(HEADER_BYTES);
  const last = writable.at(-1);
  if (last === undefined || lengthOf(readable) < HEADER_BYTES) return null;
  copyOut(memory, slice(readable, 0, HEADER_BYTES), header);
  const dataBytes = lengthOf(writable) - 1;
  const into = slice(writable, 0, dataBytes);
  const from = slice(readable, HEADER_BYTES, lengthOf(readable) - HEADER_BYTES);
  return {
    head,
    statusGpa: last.gpa + last.length - 1,
    dataBytes,
    action: actionOf(memory, header.readUInt32LE(0), header.readBigUInt64LE(8), into, from, disk),
  };
}

function actionOf(
  memory: DmaMemory,
  type: number,
  sector: bigint,
  into: readonly GuestRange[],
  from: readonly GuestRange[],
  { sizeBytes, readOnly }: { readonly sizeBytes: number; readonly readOnly: boolean },
): Action {
  switch (type) {
    case RequestType.in: {
      const range = rangeOn(sizeBytes, sector, lengthOf(into));
      return range ? { kind: 'read', offset: range.offset, into } : refuse(Status.ioError);
    }
    case RequestType.out: {
      const range = rangeOn(sizeBytes, sector, lengthOf(from));
      return range && !readOnly ? { kind: 'write', offset: range.offset, from } : refuse(Status.ioError);
    }
    case RequestType.flush:
      return { kind: 'flush' };
    case RequestType.getId:
      return { kind: 'getId', into };
    case RequestType.discard:
    case RequestType.writeZeroes:
      if (readOnly) return refuse(Status.ioError);
      return zeroAction(memory, type === RequestType.discard, from, sizeBytes);
    default:
      return refuse(Status.unsupported);
  }
}

function zeroAction(
  memory: DmaMemory,
  isDiscard: boolean,
  from: readonly GuestRange[],
  sizeBytes: number,
): Action {
  const count = lengthOf(from) / SEGMENT_BYTES;
  if (!Number.isInteger(count) || count === 0 || count > MAX_SEGMENTS) return refuse(Status.ioError);
  const segments = Buffer.alloc(count * SEGMENT_BYTES);
  copyOut(memory, from, segments);
  const ranges: DiskRange[] = [];
  let unmap = isDiscard;
  for (let at = 0; at < segments.length; at += SEGMENT_BYTES) {
    const sectors = segments.readUInt32LE(at + 8);
    const flags = segments.readUInt32LE(at + 12);
    if (flags & ~UNMAP || (isDiscard && flags !== 0)) return refuse(Status.unsupported);
    const range =
      sectors > MAX_SEGMENT_SECTORS
        ? null
        : rangeOn(sizeBytes, segments.readBigUInt64LE(at), sectors * SECTOR_BYTES);
    if (range === null) return refuse(Status.ioError);
    // Space is freed only if every segment permits it.
    if (!isDiscard) unmap = (at === 0 || unmap) && flags === UNMAP;
    ranges.push(range);
  }
  return { kind: 'zero', ranges, unmap };
}

/** The range, if it has whole sectors and lies on the disk. */
function rangeOn(sizeBytes: number, sector: bigint, length: number): DiskRange | null {
  if (length === 0 || length % SECTOR_BYTES !== 0 || length > MAX_REQUEST_BYTES) return null;
  if (sector >= BigInt(sizeBytes / SECTOR_BYTES)) return null;
  const offset = Number(sector) * SECTOR_BYTES;
  return length <= sizeBytes - offset ? { offset, length } : null;
}

const lengthOf = (ranges: readonly GuestRange[]): number =>
  ranges.reduce((sum, { length }) => sum + length, 0);

/** `length` bytes of `ranges`, from the byte `from` on. */
function slice(ranges: readonly GuestRange[], from: number, length: number): GuestRange[] {
  const parts: GuestRange[] = [];
  let skip = from;
  let left = length;
  for (const range of ranges) {
    const taken = Math.min(Math.max(range.length - skip, 0), left);
    if (taken > 0) parts.push({ gpa: range.gpa + skip, length: taken });
    skip = Math.max(skip - range.length, 0);
    left -= taken;
  }
  return parts;
}

function copyOut(memory: DmaMemory, ranges: readonly GuestRange[], into: Uint8Array): void {
  let at = 0;
  for (const { gpa, length } of ranges) {
    memory.read(gpa, into.subarray(at, at + length));
    at += length;
  }
}
