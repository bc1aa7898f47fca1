/**
 * A machine's console between the guest and those who look at it: the last bytes it wrote, kept in a ring, and
 * viewers that each read from the ring at their own pace.
 *
 * Invariants: the guest never waits for a viewer; memory is bounded by the ring, whatever the guest writes and
 * however slow a viewer is; a viewer sees every byte once and in order, or is told in a line of its own how many
 * it was too slow for, or how many were dropped before they came here.
 */
import type { Writable } from 'node:stream';

/** The most that is kept for a viewer that lags. */
export const RING_BYTES = 1 << 20;
/** What a viewer that joins is shown of the past unless it asks for less. */
export const HISTORY_BYTES = 64 * 1024;

/** The most given to a viewer's stream at a time: what is waiting in a stream is no longer in our hands. */
const SLICE_BYTES = 64 * 1024;

const LINE_FEED = 0x0a;

interface Viewer {
  readonly out: Writable;
  /** Count of the guest's bytes that it has been given or has missed. */
  position: number;
  /** Its stream is full: wait for `drain`. */
  waiting: boolean;
  readonly finished: () => void;
}

export class ConsoleHub {
  readonly #ring = new Uint8Array(RING_BYTES);
  /** Bytes the guest has ever written. */
  #written = 0;
  #ended = false;
  readonly #viewers = new Set<Viewer>();

  /** Whether the guest's next byte begins a line. */
  get atLineStart(): boolean {
    return this.#written === 0 || this.#ring[(this.#written - 1) % RING_BYTES] === LINE_FEED;
  }

  get viewers(): number {
    return this.#viewers.size;
  }

  /** Takes bytes that the guest wrote. */
  push(bytes: Uint8Array): void {
    for (let from = 0; from < bytes.length; from += RING_BYTES) {
      const part = bytes.subarray(from, from + RING_BYTES);
      const at = this.#written % RING_BYTES;
      const head = Math.min(part.length, RING_BYTES - at);
      this.#ring.set(part.subarray(0, head), at);
      this.#ring.set(part.subarray(head), 0);
      this.#written += part.length;
    }
    for (const viewer of this.#viewers) this.#feed(viewer);
  }

  /** So many of the guest's bytes were dropped before they came here. All viewers see that in a line of its own. */
  skip(bytes: number): void {
    this.push(
      Buffer.from(`\r\n[livesnap: ${bytes} bytes of output skipped: the machine's process was busy]\r\n`),
    );
  }

  /** No more will come: viewers are given what is left for them and their `finished` is called. */
  end(): void {
    this.#ended = true;
    for (const viewer of this.#viewers) this.#feed(viewer);
  }

  /**
   * Lets `out` see the last `historyBytes` of the past and all that follows. `finished` is called once when the
   * console has ended and all of it was given; ending or destroying `out` is the caller's. Returns how to leave.
   */
  join(out: Writable, historyBytes: number, finished: () => void): () => void {
    const kept = Math.min(historyBytes, this.#written, RING_BYTES);
    const viewer: Viewer = { out, position: this.#written - kept, waiting: false, finished };
    const onDrain = () => {
      viewer.waiting = false;
      this.#feed(viewer);
    };
    out.on('drain', onDrain);
    this.#viewers.add(viewer);
    this.#feed(viewer);
    return () => {
      out.off('drain', onDrain);
      this.#viewers.delete(viewer);
    };
  }

  #feed(viewer: Viewer): void {
    while (!viewer.waiting && viewer.position < this.#written) {
      const missed = this.#written - RING_BYTES - viewer.position;
      if (missed > 0) {
        viewer.position += missed;
        viewer.out.write(`\r\n[livesnap: ${missed} bytes of output were too fast for this viewer]\r\n`);
      }
      const at = viewer.position % RING_BYTES;
      const length = Math.min(this.#written - viewer.position, RING_BYTES - at, SLICE_BYTES);
      viewer.position += length;
      // A copy: the ring is written again while the stream still holds the slice.
      viewer.waiting = !viewer.out.write(this.#ring.slice(at, at + length));
    }
    if (this.#ended && viewer.position === this.#written && this.#viewers.delete(viewer)) viewer.finished();
  }
}
