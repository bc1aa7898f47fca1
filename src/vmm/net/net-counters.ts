/**
 * What a network device has done, counted on the device thread and read on the main thread.
 *
 * Invariant: each number is written by one thread and is whole, so no lock is needed.
 */

/** The order of the numbers in the memory. */
const FIELDS = [
  'receivedFrames',
  'receivedBytes',
  'receivedDropped',
  'sentFrames',
  'sentBytes',
  'sentDropped',
  'isUp',
] as const;
type Field = (typeof FIELDS)[number];

/** As the control API shows them. "Received" and "sent" are from the guest's view. */
export interface NetTraffic {
  /** Whether the guest sees a link. */
  readonly linkUp: boolean;
  readonly receivedFrames: number;
  readonly receivedBytes: number;
  /** Frames that the guest had no buffer for that is long enough. */
  readonly receivedDropped: number;
  readonly sentFrames: number;
  readonly sentBytes: number;
  /** Frames that the host refused, or that had no link. */
  readonly sentDropped: number;
}

export class NetCounters {
  readonly #numbers: Float64Array;

  constructor(memory: SharedArrayBuffer) {
    this.#numbers = new Float64Array(memory);
  }

  static allocate(): SharedArrayBuffer {
    return new SharedArrayBuffer(FIELDS.length * 8);
  }

  add(field: Exclude<Field, 'isUp'>, count: number): void {
    this.#numbers[FIELDS.indexOf(field)]! += count;
  }

  set isUp(isUp: boolean) {
    this.#numbers[FIELDS.indexOf('isUp')] = isUp ? 1 : 0;
  }

  get traffic(): NetTraffic {
    const [receivedFrames, receivedBytes, receivedDropped, sentFrames, sentBytes, sentDropped, isUp] =
      this.#numbers;
    return {
      linkUp: isUp === 1,
      receivedFrames: receivedFrames!,
      receivedBytes: receivedBytes!,
      receivedDropped: receivedDropped!,
      sentFrames: sentFrames!,
      sentBytes: sentBytes!,
      sentDropped: sentDropped!,
    };
  }
}
