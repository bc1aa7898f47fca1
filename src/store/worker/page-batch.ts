/**
 * A batch of pages with what is known of each, in memory shared by the main thread and a page Worker. One side works
 * on it at a time: it is handed over by message.
 */
import { BATCH_PAGES, PAGE_BYTES } from '../../page-stream.js';

const PAGES_BYTES = BATCH_PAGES * PAGE_BYTES;
const COLUMN_BYTES = BATCH_PAGES * 8;

export class PageBatch {
  readonly pages: Uint8Array;
  /** 8 bytes a page. As 32-bit words: low, high. */
  readonly fingerprints: Uint8Array;
  readonly fingerprintWords: Uint32Array;
  /** Pack and chunk of each page; 0, 0 is the zero page. */
  readonly places: Uint32Array;
  /** What stood at the same address before: tried first. */
  readonly priorFingerprints: Uint32Array;
  readonly priorPlaces: Uint32Array;

  constructor(readonly shared: SharedArrayBuffer = new SharedArrayBuffer(PAGES_BYTES + 4 * COLUMN_BYTES)) {
    const column = (i: number): Uint32Array =>
      new Uint32Array(shared, PAGES_BYTES + i * COLUMN_BYTES, BATCH_PAGES * 2);
    this.pages = new Uint8Array(shared, 0, PAGES_BYTES);
    this.fingerprints = new Uint8Array(shared, PAGES_BYTES, COLUMN_BYTES);
    this.fingerprintWords = column(0);
    this.places = column(1);
    this.priorFingerprints = column(2);
    this.priorPlaces = column(3);
  }
}
