/** The saved state of a virtqueue, apart from the registers that configure it. */
import { type Check, flag, integer, list, object, satisfying } from '../../schema.js';

/** The largest queue of virtio 1.2, section 2.7. */
export const MAX_QUEUE_SIZE = 32_768;

export interface QueueState {
  /** Size while ready; 0 while the queue is not ready. */
  readonly size: number;
  readonly ready: boolean;
  /** The next entry of the avail ring that is popped, modulo 2^16. */
  readonly lastAvail: number;
  /** The used index that the driver sees. */
  readonly usedIndex: number;
  /** Heads of the chains in flight, in the order in which they were popped. */
  readonly heads: readonly number[];
}

const word = integer(0, 0xffff);

export const QUEUE_STATE: Check<QueueState> = satisfying(
  object({
    size: integer(0, MAX_QUEUE_SIZE),
    ready: flag,
    lastAvail: word,
    usedIndex: word,
    heads: list(word, 0, MAX_QUEUE_SIZE),
  }),
  ({ size, ready, heads }) =>
    heads.every((head) => head < size) &&
    new Set(heads).size === heads.length &&
    (ready ? size > 0 && (size & (size - 1)) === 0 : heads.length === 0),
  'is not the state of a queue',
);
