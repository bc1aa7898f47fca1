/**
 * The bases of a save: for each region, the region of a snapshot that it is stored relative to. Their snapshots are
 * pinned until the save ends, so that gc keeps their chunks even if they are removed meanwhile.
 *
 * Invariant: a base is a snapshot that the index lists, or one that this thread has pinned already.
 */
import { LivesnapError } from '../../errors.js';
import type { SaveBase, SavedRegion } from '../../page-stream.js';
import type { StoreContext } from '../context.js';
import { Pin } from '../pins.js';
import type { BlockEntry } from '../snapshot/block-list.js';
import { readSnapshotFile, type SnapshotFile } from '../snapshot/snapshot-file.js';

/** A region of a snapshot file. */
export class RegionBase {
  constructor(
    readonly file: SnapshotFile,
    /** Its index in the description of the file. */
    readonly region: number,
  ) {}

  get sizeBytes(): number {
    return this.file.description.regions[this.region]!.sizeBytes;
  }

  /** Undefined: all pages of the block are zero, or it is beyond the end. */
  entryOf(block: number): BlockEntry | undefined {
    const { blocks } = this.file;
    const index = blocks.lowerBound(this.region, block);
    const entry = index < blocks.length ? blocks.at(index) : undefined;
    return entry?.region === this.region && entry.block === block ? entry : undefined;
  }

  /** Ascending. */
  entries(): Generator<BlockEntry> {
    return this.file.blocks.entriesOf(this.region);
  }
}

export class Bases {
  readonly #pins: Pin[] = [];
  /** The snapshots that were asked for; null: removed or damaged. */
  readonly #files = new Map<string, SnapshotFile | null>();
  readonly #ofRegions = new Map<string, RegionBase>();
  /** For each region, the index of its base in its list; null: none can be used. */
  readonly chosen: readonly (number | null)[];
  /** The snapshot that is the base of the first region. */
  readonly parent: string | null;

  private constructor(
    readonly context: StoreContext,
    regions: readonly SavedRegion[],
  ) {
    try {
      this.chosen = regions.map((region) => this.#choose(region));
    } catch (error) {
      this.release();
      throw error;
    }
    const first = regions[0] && this.#ofRegions.get(regions[0].region);
    this.parent = first?.file.description.id ?? null;
  }

  /** Pins the first base of each region that can be used. Errors: STORE_BUSY. */
  static open(context: StoreContext, regions: readonly SavedRegion[]): Bases {
    return new Bases(context, regions);
  }

  /** The base of the region with this name. */
  of(region: string): RegionBase | null {
    return this.#ofRegions.get(region) ?? null;
  }

  release(): void {
    for (const pin of this.#pins.splice(0)) pin.release();
  }

  #choose({ region, bases }: SavedRegion): number | null {
    for (const [i, base] of bases.entries()) {
      const found = this.#find(base);
      if (!found) continue;
      this.#ofRegions.set(region, found);
      return i;
    }
    return null;
  }

  #find({ snapshot, region }: SaveBase): RegionBase | null {
    let file = this.#files.get(snapshot);
    if (file === undefined) {
      file = this.#open(snapshot);
      this.#files.set(snapshot, file);
    }
    const index = file?.description.regions.findIndex(({ name }) => name === region) ?? -1;
    return file && index >= 0 ? new RegionBase(file, index) : null;
  }

  #open(id: string): SnapshotFile | null {
    const pin = this.#pin(id);
    if (!pin) return null;
    try {
      const file = readSnapshotFile(this.context.dir, id);
      this.#pins.push(pin);
      return file;
    } catch (error) {
      pin.release();
      if (error instanceof LivesnapError && error.code === 'DAMAGED') return null;
      throw error;
    }
  }

  #pin(id: string): Pin | null {
    const { context } = this;
    const gone = new LivesnapError('NO_SUCH_SNAPSHOT', `the snapshot ${id} was removed`);
    try {
      return Pin.take(context, () => {
        if (!context.index.has(id)) throw gone;
        return id;
      });
    } catch (error) {
      if (error === gone) return Pin.again(context, id);
      throw error;
    }
  }
}
