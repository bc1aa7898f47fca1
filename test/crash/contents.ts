/**
 * The contents of snapshots, made from seeds.
 *
 * A snapshot is known by its label, which is kept as the name of its machine or file. So a snapshot that was committed
 * by a process that died before it reported the ID is known as well.
 */
import { PAGE_BYTES } from '../../src/page-stream.js';
import { noise, seeded, textPages } from '../store/scratch.js';
import type { Chooser } from './chooser.js';

/** Describes the contents of a snapshot. The seed and the parent determine every byte. */
export interface Content {
  readonly label: string;
  readonly kind: 'machine' | 'file';
  readonly seed: number;
  /** In bytes for a file, in pages for a machine. */
  readonly size: number;
  /** An incremental snapshot differs from its parent in the pages `dirty` only. */
  readonly parent: string | null;
  readonly dirty: readonly number[];
  /** The disk of a machine. */
  readonly disk?: Disk;
}

/** A region `disk0`. It differs from its base in the pages `dirty` only. */
export interface Disk {
  readonly sizeBytes: number;
  /** A file, or the disk of a machine; null: the disk was empty. */
  readonly base: string | null;
  readonly dirty: readonly number[];
}

/** A copy of this many pages commits parts before it is complete. */
export const LARGE_PAGES = 8500;
const POOL_PAGES = 48;
const pool = [noise(0x9001, POOL_PAGES / 2), textPages(0x9002, POOL_PAGES / 2)];

/** A page that no other machine has, quick to make and to compress. */
function markedPage(seed: number, number: number): Buffer {
  const bytes = Buffer.alloc(PAGE_BYTES);
  bytes.writeUInt32LE((seed | 1) >>> 0);
  bytes.writeUInt32LE(number, PAGE_BYTES / 2);
  return bytes;
}

/** A page of zeros, one that other snapshots have too, text, or noise. */
function page(seed: number, number: number): Buffer {
  const next = seeded(Math.imul(seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b));
  switch (next() % 5) {
    case 0:
      return Buffer.alloc(PAGE_BYTES);
    case 1:
    case 2: {
      const which = next() % POOL_PAGES;
      const half = pool[which & 1]!;
      return half.subarray((which >> 1) * PAGE_BYTES, ((which >> 1) + 1) * PAGE_BYTES);
    }
    case 3:
      return textPages(next(), 1);
    default:
      return noise(next(), 1);
  }
}

/** Bytes of snapshots by label. Each is made once. */
export class Contents {
  readonly #known = new Map<string, Content>();
  readonly #bytes = new Map<string, Buffer>();

  constructor(known: Iterable<Content> = []) {
    for (const content of known) this.add(content);
  }

  add(content: Content): void {
    this.#known.set(content.label, content);
  }

  get(label: string): Content {
    const content = this.#known.get(label);
    if (!content) throw new Error(`no content has the label ${label}`);
    return content;
  }

  all(): Content[] {
    return [...this.#known.values()];
  }

  bytes(label: string): Buffer {
    let bytes = this.#bytes.get(label);
    if (!bytes) {
      bytes = this.#make(this.get(label));
      this.#bytes.set(label, bytes);
    }
    return bytes;
  }

  /** All regions of a snapshot. */
  regions(label: string): Record<string, Buffer> {
    const { kind, disk } = this.get(label);
    const bytes = this.bytes(label);
    if (kind === 'file') return { file: bytes };
    return disk ? { 'ram@0x0': bytes, disk0: this.#diskOf(label) } : { 'ram@0x0': bytes };
  }

  /** Whether a snapshot has these regions. */
  matches(label: string, found: Record<string, Buffer>): boolean {
    const expected = this.regions(label);
    const names = Object.keys(expected);
    return (
      names.length === Object.keys(found).length &&
      names.every((name) => found[name]?.equals(expected[name]!) === true)
    );
  }

  /** The name of the region that is the base of a machine's disk. */
  baseRegionOf(label: string): 'file' | 'disk0' {
    return this.get(label).kind === 'file' ? 'file' : 'disk0';
  }

  #diskOf(label: string): Buffer {
    const name = `disk of ${label}`;
    const known = this.#bytes.get(name);
    if (known) return known;
    const { seed, disk } = this.get(label);
    const { sizeBytes, base, dirty } = disk!;
    const bytes = Buffer.alloc(sizeBytes);
    if (base !== null) this.regions(base)[this.baseRegionOf(base)]!.copy(bytes);
    for (const i of dirty) page(seed + 1, i).copy(bytes, i * PAGE_BYTES);
    this.#bytes.set(name, bytes);
    return bytes;
  }

  #make({ kind, seed, size, parent, dirty }: Content): Buffer {
    const sizeBytes = kind === 'file' ? size : size * PAGE_BYTES;
    const bytes = Buffer.alloc(Math.ceil(sizeBytes / PAGE_BYTES) * PAGE_BYTES);
    const count = bytes.length / PAGE_BYTES;
    if (parent === null && count >= LARGE_PAGES)
      for (let i = 0; i < count; i++) bytes.set(markedPage(seed, i), i * PAGE_BYTES);
    else if (parent === null)
      for (let i = 0; i < count; i++) {
        // Most of a large machine is empty: its manifest has several blocks, and the test stays quick.
        if (count > 400 && i % 97 > 8) continue;
        bytes.set(page(seed, i), i * PAGE_BYTES);
      }
    else {
      bytes.set(this.bytes(parent).subarray(0, bytes.length));
      for (const i of dirty) bytes.set(page(seed, i), i * PAGE_BYTES);
    }
    return bytes.subarray(0, sizeBytes);
  }

  /** The labels of a machine. */
  static labels(label: string): Record<string, string> {
    return { plan: label };
  }

  /** The state of a machine. */
  static state(label: string): Buffer {
    return Buffer.from(`state of ${label} `.repeat(20));
  }
}

/** Chooses the disk of a machine: a new one, or some pages of a file or of another disk, perhaps of another size. */
function makeDisk(choose: Chooser, bases: readonly Content[]): Disk {
  const base = bases.length > 0 && choose.chance(0.8) ? choose.pick(bases) : null;
  const baseBytes = base ? (base.disk?.sizeBytes ?? base.size) : choose.below(200 * PAGE_BYTES);
  // Whole sectors.
  const change = choose.chance(0.3) ? choose.below(80 * PAGE_BYTES) - 40 * PAGE_BYTES : 0;
  const sizeBytes = Math.max(1, Math.ceil((baseBytes + change) / 512)) * 512;
  const pages = Math.ceil(sizeBytes / PAGE_BYTES);
  const dirty = choose.some(
    Array.from({ length: pages }, (_, i) => i),
    Math.min(pages, choose.below(20)),
  );
  return { sizeBytes, base: base?.label ?? null, dirty: dirty.sort((a, b) => a - b) };
}

/**
 * Chooses a snapshot to save: full, or some pages of one of the parents. A machine may have a disk, which may be based on
 * any of `diskBases`.
 */
export function makeContent(
  choose: Chooser,
  label: string,
  kind: Content['kind'],
  parents: Content[],
  diskBases: readonly Content[] = [],
): Content {
  const content = makeBytes(choose, label, kind, parents);
  if (kind === 'file' || diskBases.length === 0 || choose.chance(0.4)) return content;
  return { ...content, disk: makeDisk(choose, diskBases) };
}

function makeBytes(choose: Chooser, label: string, kind: Content['kind'], parents: Content[]): Content {
  const seed = choose.next();
  const parent = kind === 'machine' && parents.length > 0 && choose.chance(0.6) ? choose.pick(parents) : null;
  if (parent) {
    const size = choose.chance(0.15) ? Math.max(1, parent.size - choose.below(40)) : parent.size;
    const count = Math.min(size, 1 + choose.below(40));
    const dirty = choose.some(
      Array.from({ length: size }, (_, i) => i),
      count,
    );
    return { label, kind, seed, size, parent: parent.label, dirty: dirty.sort((a, b) => a - b) };
  }
  if (kind === 'file')
    return { label, kind, seed, size: choose.below(60 * PAGE_BYTES), parent: null, dirty: [] };
  const size = choose.chance(0.2) ? 500 + choose.below(700) : 20 + choose.below(160);
  return { label, kind, seed, size, parent: null, dirty: [] };
}
