/**
 * A region of a snapshot that is read on demand, by a native reader (src/native/region-reader.ts).
 *
 * Thread: opened and closed by the thread that opened the store. Any thread reads.
 *
 * Invariants:
 * - The snapshot is pinned until `close`, also after the snapshot and the store are closed.
 * - It holds neither `lock` nor `index.lock`: gc and repair run beside it. The reader finds packs that they replace.
 */
import { closeRegionReader, openRegionReader, type RegionReader } from '../native/region-reader.js';
import type { OpenRegion, Region } from '../page-stream.js';
import type { StoreContext } from './context.js';
import { at, PACKS } from './disk/layout.js';
import type { Pin } from './pins.js';
import type { SnapshotFile } from './snapshot/snapshot-file.js';

export class StoredRegion implements OpenRegion {
  /** The ID of the snapshot, and its region. */
  readonly snapshot: string;
  readonly region: Region;
  readonly reader: RegionReader;
  #isOpen = true;

  /** Takes over `pin`. `packs`: pairs of number and generation. Errors: those of the system. */
  constructor(
    { dir, fingerprintBits }: StoreContext,
    readonly pin: Pin,
    { description, blocks }: SnapshotFile,
    region: number,
    packs: Uint32Array,
  ) {
    this.snapshot = description.id;
    this.region = description.regions[region]!;
    try {
      this.reader = openRegionReader({
        packsDir: at(dir, PACKS),
        sizeBytes: this.sizeBytes,
        blocks: blocks.bytesOf(region),
        generations: packs,
        fingerprintBits,
      });
    } catch (error) {
      pin.release();
      throw error;
    }
  }

  get sizeBytes(): number {
    return this.region.sizeBytes;
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    closeRegionReader(this.reader);
    this.pin.release();
  }
}
