/**
 * The saved state of a virtqueue: the registers that configure it, and its progress.
 *
 * Addresses are hexadecimal text, because a guest may write any 64-bit value.
 */
import { type Check, flag, integer, list, object, satisfying, text } from '../../schema.js';

/** The largest queue of virtio 1.2, section 2.7. */
const MAX_QUEUE_SIZE = 32_768;

export interface QueueState {
  readonly size: number;
  readonly descriptorTable: string;
  readonly availRing: string;
  readonly usedRing: string;
  readonly ready: boolean;
  /** The next entry of the avail ring that is popped, modulo 2^16. */
  readonly lastAvail: number;
  /** The used index that the driver sees. */
  readonly usedIndex: number;
  /** Heads of the chains in flight, in the order in which they were popped. */
  readonly heads: readonly number[];
}

const word = integer(0, 0xffff);

/** A hexadecimal number of at most 64 bits. */
export const hex64 = text(/^0x[0-9a-f]{1,16}$/, 'a hexadecimal number of 64 bits');

export const toHex = (value: bigint): string => `0x${value.toString(16)}`;

export const isQueueSize = (size: number, largest: number): boolean =>
  size > 0 && size <= largest && (size & (size - 1)) === 0;

export const QUEUE_STATE: Check<QueueState> = satisfying(
  object({
    size: integer(0, 0xffff_ffff),
    descriptorTable: hex64,
    availRing: hex64,
    usedRing: hex64,
    ready: flag,
    lastAvail: word,
    usedIndex: word,
    heads: list(word, 0, MAX_QUEUE_SIZE),
  }),
  ({ size, ready, heads }) =>
    ready
      ? isQueueSize(size, MAX_QUEUE_SIZE) &&
        heads.every((head) => head < size) &&
        new Set(heads).size === heads.length
      : heads.length === 0,
  'is not the state of a queue',
);
