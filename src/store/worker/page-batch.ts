/**
 * A batch of pages in shared memory, with columns for what is known of each page.
 *
 * Invariant: one thread at a time works on a batch. A job message gives it to a page Worker, the response gives it
 * back.
 */
import { BATCH_PAGES, PAGE_BYTES } from '../../page-stream.js';

const BATCH_BYTES = BATCH_PAGES * PAGE_BYTES;
const COLUMN_BYTES = BATCH_PAGES * 8;

/** Columns have two 32-bit words per page. */
export class PageBatch {
  readonly pages: Uint8Array;
  /** Low and high word. All zero: the zero page. */
  readonly fingerprints: Uint8Array;
  /** The same memory as words. */
  readonly fingerprintWords: Uint32Array;
  /** Pack and chunk. 0, 0: the zero page. */
  readonly places: Uint32Array;
  /** Fingerprint and place that the parent has at the same address. */
  readonly priorFingerprints: Uint32Array;
  readonly priorPlaces: Uint32Array;

  constructor(readonly shared: SharedArrayBuffer = new SharedArrayBuffer(BATCH_BYTES + 4 * COLUMN_BYTES)) {
    const column = (i: number): Uint32Array =>
      new Uint32Array(shared, BATCH_BYTES + i * COLUMN_BYTES, BATCH_PAGES * 2);
    this.pages = new Uint8Array(shared, 0, BATCH_BYTES);
    this.fingerprints = new Uint8Array(shared, BATCH_BYTES, COLUMN_BYTES);
    this.fingerprintWords = column(0);
    this.places = column(1);
    this.priorFingerprints = column(2);
    this.priorPlaces = column(3);
  }
}
