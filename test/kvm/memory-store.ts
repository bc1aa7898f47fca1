/** A store that keeps snapshots as maps of pages, so that machines are tested without the real store. */
import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import {
  BATCH_PAGES,
  type OpenSnapshot,
  PAGE_BYTES,
  type PageSink,
  type PageSource,
  type Region,
  type SavedRegion,
  type SaveResult,
  type SaveSession,
  type SnapshotMetadata,
} from '../../src/page-stream.js';

interface Kept {
  readonly regions: readonly Region[];
  readonly pages: Map<number, Uint8Array>[];
  readonly metadata: SnapshotMetadata;
}

export class MemoryStore {
  readonly snapshots = new Map<string, Kept>();

  constructor(readonly key = '/memory') {}

  /** How a machine that is restored from it names it. */
  get place(): { store: string; overlayDir: string } {
    return { store: this.key, overlayDir: tmpdir() };
  }
  /** How many pages the last save received. */
  pagesGiven = 0;
  /** The next save fails when it has received this many pages. */
  failAfterPages = Number.POSITIVE_INFINITY;
  /** The error that it fails with. */
  failure: Error = new Error('the disk is full');

  /** Awaited after each batch. The guest runs meanwhile, as it does with a real store. */
  betweenBatches: () => Promise<unknown> = () => new Promise(setImmediate);
  /** Awaited when a save begins, before its snapshot exists, and when it is given up. */
  beforeBegin: () => Promise<unknown> = async () => {};
  beforeCommit: () => Promise<unknown> = async () => {};
  beforeAbort: () => Promise<unknown> = async () => {};

  async beginSave({ regions: saved }: { regions: readonly SavedRegion[] }): Promise<SaveSession> {
    await this.beforeBegin();
    const chosen = saved.map(({ bases }) => bases.findIndex(({ snapshot }) => this.snapshots.has(snapshot)));
    const parent = saved[0]?.bases[chosen[0]!]?.snapshot ?? null;
    let regions: readonly Region[] = [];
    let pages: Map<number, Uint8Array>[] = [];
    this.pagesGiven = 0;
    return {
      bases: chosen.map((i) => (i < 0 ? null : i)),
      parent,
      store: async (source: PageSource) => {
        regions = source.regions;
        pages = regions.map(({ name }, region) => {
          const base = saved[region]?.bases[chosen[region]!];
          if (saved[region]?.region !== name || !base) return new Map();
          const { regions, pages } = this.snapshots.get(base.snapshot)!;
          return new Map(pages[regions.findIndex((each) => each.name === base.region)]);
        });
        const into = new Uint8Array(BATCH_PAGES * PAGE_BYTES);
        for (let run = await source.next(into); run !== null; run = await source.next(into)) {
          const { region, pages: numbers } = run;
          numbers.forEach((page, i) => {
            pages[region]!.set(page, into.slice(i * PAGE_BYTES, (i + 1) * PAGE_BYTES));
          });
          this.pagesGiven += numbers.length;
          if (this.pagesGiven >= this.failAfterPages) {
            this.failAfterPages = Number.POSITIVE_INFINITY;
            throw this.failure;
          }
          await this.betweenBatches();
        }
      },
      commit: async (metadata: SnapshotMetadata): Promise<SaveResult> => {
        await this.beforeCommit();
        const id = randomBytes(16).toString('hex');
        this.snapshots.set(id, { regions, pages, metadata });
        return {
          id,
          tags: metadata.tags,
          movedTags: [],
          parent,
          pages: regions.reduce((sum, { sizeBytes }) => sum + sizeBytes / PAGE_BYTES, 0),
          zeroPages: 0,
          unchangedPages: 0,
          newChunks: 0,
          reusedChunks: 0,
          storedBytes: 0,
        };
      },
      abort: async () => {
        await this.beforeAbort();
      },
    };
  }

  open(id: string): OpenSnapshot {
    const { regions, pages, metadata } = this.snapshots.get(id)!;
    const { kind, vm, tags, memoryBytes, diskBytes } = metadata;
    return {
      summary: {
        ...{ id, tags, kind, vm, parent: null, createdAt: '', memoryBytes, diskBytes },
        ...{ storedBytes: 0, labels: {}, pauseMs: null },
      },
      metadata,
      regions,
      fill: async (sink: PageSink) => {
        pages.forEach((map, region) => {
          for (const [page, bytes] of map) {
            if (bytes.some((byte) => byte !== 0)) sink.write({ region, pages: Uint32Array.of(page) }, bytes);
          }
        });
      },
      openRegion: () => Promise.reject(new Error('a MemoryStore has no readers')),
      close: () => {},
    };
  }
}
