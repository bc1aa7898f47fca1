/**
 * The disks of one machine: opens what they need on the host, and closes it when the machine has ended.
 *
 * Thread: the main thread.
 *
 * Invariants:
 * - If one disk cannot be opened, nothing stays open.
 * - A region of a snapshot stays pinned while a disk reads from it.
 * - Descriptors are closed only after the engine has ended all operations, so none reaches a file that reuses a number.
 */
import { closeSync } from 'node:fs';
import { resolve } from 'node:path';
import { LivesnapError } from '../../errors.js';
import { closeIoEngine, createIoEngine, type IoEngine } from '../../native/block-io.js';
import { closeMemory, createMemory, type MemoryHandle } from '../../native/memory.js';
import { readRegion, regionReaderError } from '../../native/region-reader.js';
import {
  BATCH_PAGES,
  type OpenRegion,
  type OpenSnapshot,
  PAGE_BYTES,
  type Progress,
  type SaveBase,
} from '../../page-stream.js';
import { SharedBits } from '../memory/shared-bits.js';
import {
  type DiskConfig,
  type DiskOrigin,
  type DiskRequest,
  diskName,
  MAX_DISK_BYTES,
} from './disk-config.js';
import { type ImageMode, imageFormat, openDiskImage } from './disk-image.js';
import { blocksOf, type DiskBase, type DiskSetup, SECTOR_BYTES } from './disk-setup.js';
import { openOverlayFile, reserveBytesFor } from './scratch-file.js';
import { openShare } from './share.js';

/** A device thread that failed has not waited for its operations. They usually end at once. */
const LAST_OPERATIONS_MS = 200;

/** A store that is open for reading. */
export interface DiskStore {
  /** As SaveTarget.key. */
  readonly key: string;
  openSnapshot(ref: string): Promise<OpenSnapshot>;
}

/** What the disks of a machine may use of the host. */
export interface DiskHost {
  /** The directory for what the machine writes to overlays. */
  readonly overlayDir: string;
  /** Opens the machine's store; called once at most. */
  openStore(): Promise<DiskStore>;
  /** Of the copies that shares are made of, one after the other. */
  readonly progress?: Progress;
}

/** A region that a disk is made of. */
interface BaseRegion {
  readonly storeKey: string;
  readonly base: SaveBase;
}

export interface MachineDisk {
  readonly config: DiskConfig;
  readonly setup: DiskSetup;
  /** The region that the disk shows where it was not written; null for an image file. */
  readonly base: BaseRegion | null;
}

/** What is open for one disk. */
interface Opened {
  readonly source: DiskOrigin;
  readonly sizeBytes: number;
  readonly layer: DiskBase;
  readonly base: BaseRegion | null;
}

export class MachineDisks {
  readonly list: MachineDisk[] = [];
  /** Null without disks. */
  engine: IoEngine | null = null;
  /** Where the device thread puts blocks that a save reads: {@link BATCH_PAGES} blocks. Null without disks. */
  staging: MemoryHandle | null = null;
  readonly #fds: number[] = [];
  readonly #regions: OpenRegion[] = [];
  readonly #overlayDir: string;

  private constructor(overlayDir: string) {
    this.#overlayDir = overlayDir;
  }

  /** Errors: those of openDiskImage, of the store, and of the overlay's directory; BAD_IMAGE; USAGE. */
  static async open(
    requests: readonly DiskRequest[],
    host: DiskHost,
    memoryBytes: number,
  ): Promise<MachineDisks> {
    const disks = new MachineDisks(host.overlayDir);
    return disks.#filled(async () => {
      let store: DiskStore | null = null;
      for (const { source, mode, onError } of requests) {
        let opened: Opened;
        if (source.kind === 'file') opened = disks.#openFile(source.path, mode, source.fd);
        else if (source.kind === 'share') opened = disks.#openShare(source.path, host.progress);
        else {
          store ??= await host.openStore();
          opened = await disks.#openReference(store, source.snapshot, source.region);
        }
        disks.#add(opened, mode, onError, memoryBytes);
      }
    });
  }

  /** The disks of a machine that is restored: each reads its region of the snapshot, and writes to an overlay. */
  static async restore(
    configs: readonly DiskConfig[],
    snapshot: OpenSnapshot,
    storeKey: string,
    overlayDir: string,
    memoryBytes: number,
  ): Promise<MachineDisks> {
    const disks = new MachineDisks(overlayDir);
    return disks.#filled(async () => {
      for (const { name, mode, sizeBytes, onError } of configs) {
        const region = await snapshot.openRegion(name);
        disks.#regions.push(region);
        disks.#add(
          regionLayer(snapshot.summary.id, name, region, sizeBytes, storeKey),
          mode,
          onError,
          memoryBytes,
        );
      }
    });
  }

  get configs(): readonly DiskConfig[] {
    return this.list.map(({ config }) => config);
  }

  /** Closes everything. The device thread has ended. What an operation uses that hangs stays open. */
  close(): void {
    if (this.engine !== null && !closeIoEngine(this.engine, LAST_OPERATIONS_MS)) return;
    if (this.staging !== null) closeMemory(this.staging);
    this.engine = null;
    this.staging = null;
    for (const fd of this.#fds.splice(0)) closeSync(fd);
    for (const region of this.#regions.splice(0)) region.close();
  }

  async #filled(fill: () => Promise<void>): Promise<MachineDisks> {
    try {
      await fill();
      if (this.list.length > 0) {
        this.engine = createIoEngine();
        this.staging = createMemory(BATCH_PAGES * PAGE_BYTES);
      }
      return this;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #openFile(path: string, mode: ImageMode, given?: number): Opened {
    const { fd, sizeBytes } = openDiskImage(path, mode, given);
    this.#fds.push(fd);
    if (sizeBytes > MAX_DISK_BYTES) throw tooLarge(`disk image ${path}`, sizeBytes);
    return {
      source: { kind: 'file', path: resolve(path) },
      sizeBytes,
      layer: { kind: 'file', fd },
      base: null,
    };
  }

  #openShare(path: string, progress: Progress | undefined): Opened {
    const { fd, sizeBytes } = openShare(path, this.#overlayDir, progress);
    this.#fds.push(fd);
    return { source: { kind: 'share', path }, sizeBytes, layer: { kind: 'file', fd }, base: null };
  }

  async #openReference(store: DiskStore, ref: string, wanted: string | null): Promise<Opened> {
    const snapshot = await store.openSnapshot(ref);
    try {
      const name = wanted ?? onlyDisk(snapshot, ref);
      if (!snapshot.regions.some((each) => each.name === name))
        throw new LivesnapError('NO_SUCH_REGION', `snapshot ${ref} has no region ${name}`, {
          hint: chooseDisk(snapshot, ref),
        });
      if (!diskRegions(snapshot).includes(name))
        throw new LivesnapError('USAGE', `region ${name} of snapshot ${ref} is memory, not a disk`, {
          hint: chooseDisk(snapshot, ref),
        });
      const region = await snapshot.openRegion(name);
      this.#regions.push(region);
      const { sizeBytes } = region;
      const what = `region ${name} of snapshot ${ref}`;
      if (sizeBytes === 0 || sizeBytes % SECTOR_BYTES !== 0)
        throw new LivesnapError(
          'BAD_IMAGE',
          `${what} has ${sizeBytes} bytes, not a multiple of ${SECTOR_BYTES}`,
          {
            hint: 'It is not a raw disk image. Store one with livesnap put.',
          },
        );
      if (sizeBytes > MAX_DISK_BYTES) throw tooLarge(what, sizeBytes);
      const base = { snapshot: snapshot.summary.id, region: name };
      checkStart(region, what, base);
      return regionLayer(base.snapshot, name, region, sizeBytes, store.key);
    } finally {
      snapshot.close();
    }
  }

  #add(
    { source, sizeBytes, layer, base }: Opened,
    mode: ImageMode,
    onError: DiskConfig['onError'],
    memoryBytes: number,
  ): void {
    const name = diskName(this.list.length);
    const blocks = blocksOf(sizeBytes);
    const hasOverlay = mode === 'cow' || (mode === 'rw' && layer.kind === 'store');
    let overlay: DiskSetup['overlay'] = null;
    if (hasOverlay) {
      const fd = openOverlayFile(this.#overlayDir);
      this.#fds.push(fd);
      const reserveBytes = reserveBytesFor(this.#overlayDir, memoryBytes);
      overlay = { fd, present: SharedBits.allocate(blocks), reserveBytes };
    }
    this.list.push({
      config: { name, source, mode, sizeBytes, onError },
      setup: {
        name,
        sizeBytes,
        readOnly: mode === 'ro',
        onError,
        base: layer,
        overlay,
        written: SharedBits.allocate(blocks),
        scratchDir: this.#overlayDir,
      },
      base,
    });
  }
}

const regionLayer = (
  snapshot: string,
  region: string,
  { reader }: OpenRegion,
  sizeBytes: number,
  storeKey: string,
): Opened => ({
  source: { kind: 'snapshot', store: storeKey, snapshot, region },
  sizeBytes,
  layer: { kind: 'store', reader, name: `${snapshot}:${region}` },
  base: { storeKey, base: { snapshot, region } },
});

/** The names of the regions that can be a disk: `file`, or `diskN`. */
const diskRegions = ({ regions }: OpenSnapshot): string[] =>
  regions.map(({ name }) => name).filter((name) => !name.startsWith('ram@'));

function onlyDisk(snapshot: OpenSnapshot, ref: string): string {
  const names = diskRegions(snapshot);
  if (names.length === 1) return names[0]!;
  throw new LivesnapError(
    'USAGE',
    names.length === 0 ? `snapshot ${ref} has no disk` : `snapshot ${ref} has ${names.length} disks`,
    { hint: chooseDisk(snapshot, ref) },
  );
}

/** A hint. */
function chooseDisk(snapshot: OpenSnapshot, ref: string): string {
  const names = diskRegions(snapshot);
  if (names.length === 0) return 'Store an image with livesnap put FILE, or name another snapshot.';
  const choices = names.map((name) => `snapshot=${ref}:${name}`).join(', ');
  return names.length === 1 ? `Use ${choices}.` : `Choose one: ${choices}.`;
}

const tooLarge = (what: string, sizeBytes: number): LivesnapError =>
  new LivesnapError('BAD_IMAGE', `${what} has ${sizeBytes} bytes; a disk has at most ${MAX_DISK_BYTES}`, {
    hint: 'Use a smaller image.',
  });

/** Refuses a stored image that is not raw. Reads one page, before the machine exists. */
function checkStart(opened: OpenRegion, what: string, of: SaveBase): void {
  const start = new Uint8Array(SECTOR_BYTES);
  if (readRegion(opened.reader, 0, start) !== 0) throw unreadable(opened, what, of);
  const format = imageFormat(Buffer.from(start.buffer));
  if (format !== null)
    throw new LivesnapError('BAD_IMAGE', `${what} is an image in the format ${format}, not raw`, {
      hint: 'Convert the image with qemu-img convert -O raw, and store it with livesnap put.',
    });
}

function unreadable({ reader, sizeBytes }: OpenRegion, what: string, of: SaveBase): LivesnapError {
  const hint = 'Check the store with livesnap check --read-data.';
  const error = regionReaderError(reader);
  if (error === null) return new LivesnapError('DAMAGED', `${what} cannot be read`, { hint });
  const { file, offset, why } = error;
  const place = offset === null ? file : `${file} at offset ${offset}`;
  const damage = { file, offset, ...of, fromBytes: 0, toBytes: Math.min(PAGE_BYTES, sizeBytes) };
  return new LivesnapError('DAMAGED', `${what} cannot be read: ${place}: ${why}`, { hint, damage });
}
