/**
 * The console of a machine: a ring with the last bytes of the guest's output, and viewers that read from it, each at its
 * own pace.
 *
 * Thread: the main thread of the process of a machine.
 *
 * Invariants:
 * - The guest never waits for a viewer.
 * - Memory is bounded by the ring, however much the guest writes and however slow a viewer is.
 * - A viewer sees every byte once and in order. Bytes that were skipped are counted in a line of their own.
 */
import type { Writable } from 'node:stream';

/** How far a viewer may lag behind. */
export const RING_BYTES = 1 << 20;
/** How much past output a viewer sees unless it asks otherwise. */
export const HISTORY_BYTES = 64 * 1024;

/** Written to a viewer's stream at a time. Bytes in a stream's buffer can no longer be skipped, so this is small. */
const SLICE_BYTES = 64 * 1024;

const LINE_FEED = 0x0a;

interface Viewer {
  readonly out: Writable;
  /** Bytes of the guest's output that it has received or missed. */
  position: number;
  /** Its stream is full until `drain`. */
  waiting: boolean;
  readonly onEnd: () => void;
}

export class ConsoleHub {
  readonly #ring = new Uint8Array(RING_BYTES);
  /** Bytes that the guest has written in total. */
  #written = 0;
  #ended = false;
  readonly #viewers = new Set<Viewer>();

  /** Whether the guest's next byte starts a line. */
  get atLineStart(): boolean {
    return this.#written === 0 || this.#ring[(this.#written - 1) % RING_BYTES] === LINE_FEED;
  }

  get viewers(): number {
    return this.#viewers.size;
  }

  /** How much of the output a viewer gets that asks for `most` bytes. */
  historyBytes(most: number): number {
    return Math.min(most, this.#written, RING_BYTES);
  }

  /** A copy of the end of the output, at most `most` bytes. */
  lastBytes(most: number): Uint8Array {
    const length = this.historyBytes(most);
    const at = (this.#written - length) % RING_BYTES;
    const head = this.#ring.slice(at, at + length);
    return Buffer.concat([head, this.#ring.subarray(0, length - head.length)]);
  }

  /** Adds output of the guest. */
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

  /** Tells all viewers, in a line of its own, that output was dropped before it arrived here. */
  skip(bytes: number): void {
    this.push(Buffer.from(`\r\n[livesnap: ${bytes} bytes skipped: machine process too busy]\r\n`));
  }

  /** Ends the console. Each viewer still receives the rest; then its `onEnd` is called. */
  end(): void {
    this.#ended = true;
    for (const viewer of this.#viewers) this.#feed(viewer);
  }

  /**
   * Writes the last `historyBytes` of past output, and everything that follows, to `out`. `onEnd` is called once, when
   * the console has ended and `out` has received all of it; the caller ends or destroys `out`. Returns a function that
   * removes the viewer.
   */
  join(out: Writable, historyBytes: number, onEnd: () => void): () => void {
    const viewer: Viewer = {
      out,
      position: this.#written - this.historyBytes(historyBytes),
      waiting: false,
      onEnd,
    };
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
        viewer.out.write(`\r\n[livesnap: ${missed} bytes skipped: viewer too slow]\r\n`);
      }
      const at = viewer.position % RING_BYTES;
      const length = Math.min(this.#written - viewer.position, RING_BYTES - at, SLICE_BYTES);
      viewer.position += length;
      // A copy, since the ring is overwritten while the stream still holds the slice.
      viewer.waiting = !viewer.out.write(this.#ring.slice(at, at + length));
    }
    if (this.#ended && viewer.position === this.#written && this.#viewers.delete(viewer)) viewer.onEnd();
  }
}
