/**
 * A model of a disk, and of what a power cut may leave on it (docs/testing.md, "A power cut").
 *
 * - The contents of a file are durable once an fsync of the file has returned. Until then, each write, truncation and
 *   change of size may be there or not, in any combination. Of a write, any 512-byte sectors may be there. Where a file
 *   grew and its bytes are missing, there are zeros or anything else.
 * - A name that was made, moved or removed is durable once an fsync of its directory has returned. Until then, each of
 *   these changes may have happened or not, in any combination. A rename is atomic. Between two directories, it is
 *   durable with an fsync of either.
 * - An fsync that failed makes nothing durable. What was written before it is lost, also after a later fsync.
 *
 * ext4, XFS and btrfs lose less than this. POSIX permits it.
 */
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Kind, type TraceRecord } from './trace.js';

const SECTOR_BYTES = 512;

/** A change of a file that no fsync has made durable. */
interface DataChange {
  readonly kind: 'write' | 'truncate' | 'extend';
  readonly offset: number;
  readonly bytes: Buffer;
  /** An fsync failed after this change. The next fsync that returns drops it. */
  doomed: boolean;
}

/** An atomic change of names, in one or two directories. */
interface NameChange {
  readonly edits: readonly { dir: DirectoryNode; name: string; node: Node | null }[];
  durable: boolean;
}

class FileNode {
  durable: Buffer = Buffer.alloc(0);
  pending: DataChange[] = [];
  current: Buffer = Buffer.alloc(0);
}

class DirectoryNode {
  readonly durable = new Map<string, Node>();
  pending: NameChange[] = [];
  readonly current = new Map<string, Node>();
}

type Node = FileNode | DirectoryNode;

/** Files of a disk by path. A directory has null. */
export type DiskState = Map<string, Buffer | null>;

/** How much survives of the changes that are not durable. */
export interface Survival {
  readonly data: 'none' | 'all' | 'sizes' | 'prefix' | 'some';
  readonly names: 'none' | 'all' | 'prefix' | 'some';
}

function applied(bytes: Buffer, { kind, offset, bytes: written }: DataChange): Buffer {
  if (kind === 'truncate' && offset <= bytes.length) return Buffer.from(bytes.subarray(0, offset));
  const end = kind === 'write' ? offset + written.length : offset;
  let result: Buffer;
  if (end > bytes.length) {
    result = Buffer.alloc(end);
    result.set(bytes);
  } else result = Buffer.from(bytes);
  if (kind === 'write') result.set(written, offset);
  return result;
}

const isIgnored = (path: string): boolean => path.endsWith('-shm');

export class Disk {
  readonly #root = new DirectoryNode();
  readonly #inodes = new Map<number, Node>();

  /** Reads `dir`. All of it is durable. */
  constructor(dir: string) {
    this.#read(dir, this.#root);
  }

  #read(dir: string, into: DirectoryNode): void {
    this.#inodes.set(statSync(dir).ino, into);
    for (const entry of readdirSync(dir, { withFileTypes: true })) {
      if (isIgnored(entry.name)) continue;
      const path = join(dir, entry.name);
      let node: Node;
      if (entry.isDirectory()) {
        node = new DirectoryNode();
        this.#read(path, node);
      } else {
        node = new FileNode();
        node.durable = readFileSync(path);
        node.current = node.durable;
        this.#inodes.set(statSync(path).ino, node);
      }
      into.durable.set(entry.name, node);
      into.current.set(entry.name, node);
    }
  }

  #find(path: string): { dir: DirectoryNode; name: string; node: Node | undefined } {
    const parts = path.split('/');
    const name = parts.pop()!;
    let dir = this.#root;
    for (const part of parts) {
      const next = dir.current.get(part);
      if (!(next instanceof DirectoryNode))
        throw new Error(`the trace names ${path}, but its directory does not exist`);
      dir = next;
    }
    return { dir, name, node: dir.current.get(name) };
  }

  #file(inode: number): FileNode {
    const node = this.#inodes.get(inode);
    if (!(node instanceof FileNode)) throw new Error(`the trace has inode ${inode}, which no record made`);
    return node;
  }

  #change(file: FileNode, kind: DataChange['kind'], offset: number, bytes: Buffer): void {
    const change = { kind, offset, bytes, doomed: false };
    file.pending.push(change);
    file.current = applied(file.current, change);
  }

  #rename(edits: NameChange['edits']): void {
    const change = { edits, durable: false };
    for (const dir of new Set(edits.map((edit) => edit.dir))) dir.pending.push(change);
    for (const { dir, name, node } of edits)
      if (node) dir.current.set(name, node);
      else dir.current.delete(name);
  }

  apply({ kind, inode, offset, size, first, second }: TraceRecord): void {
    switch (kind) {
      case Kind.write:
        this.#change(this.#file(inode), 'write', offset, first);
        break;
      case Kind.truncate:
        this.#change(this.#file(inode), 'truncate', size, Buffer.alloc(0));
        break;
      case Kind.allocate: {
        const file = this.#file(inode);
        if (offset + size > file.current.length) this.#change(file, 'extend', offset + size, Buffer.alloc(0));
        break;
      }
      case Kind.sync:
        this.#sync(inode);
        break;
      case Kind.syncFailed: {
        const node = this.#inodes.get(inode);
        if (node instanceof FileNode) for (const change of node.pending) change.doomed = true;
        break;
      }
      case Kind.create:
      case Kind.makeDirectory: {
        const { dir, name } = this.#find(first.toString());
        const node = kind === Kind.create ? new FileNode() : new DirectoryNode();
        this.#inodes.set(inode, node);
        this.#rename([{ dir, name, node }]);
        break;
      }
      case Kind.rename: {
        const from = this.#find(first.toString());
        const to = this.#find(second.toString());
        if (!from.node) throw new Error(`the trace renames ${first.toString()}, which does not exist`);
        if (from.node === to.node) break; // renaming one name of a file to another does nothing
        this.#rename([
          { dir: from.dir, name: from.name, node: null },
          { dir: to.dir, name: to.name, node: from.node },
        ]);
        break;
      }
      case Kind.link: {
        const from = this.#find(first.toString());
        const to = this.#find(second.toString());
        this.#rename([{ dir: to.dir, name: to.name, node: from.node! }]);
        break;
      }
      case Kind.unlink:
      case Kind.removeDirectory: {
        const { dir, name } = this.#find(first.toString());
        this.#rename([{ dir, name, node: null }]);
        break;
      }
      case Kind.mark:
        break;
      default:
        throw new Error(`the model of the disk cannot follow ${first.toString()} (${kind})`);
    }
  }

  #sync(inode: number): void {
    const node = this.#inodes.get(inode);
    if (node instanceof FileNode) {
      for (const change of node.pending) if (!change.doomed) node.durable = applied(node.durable, change);
      node.pending = [];
    } else if (node) {
      for (const change of node.pending) change.durable = true;
      for (const dir of new Set(node.pending.flatMap(({ edits }) => edits.map((edit) => edit.dir))))
        settle(dir);
    } else throw new Error(`the trace syncs inode ${inode}, which no record made`);
  }

  /** The disk as the running program sees it. */
  current(): DiskState {
    const state: DiskState = new Map();
    const walk = (dir: DirectoryNode, prefix: string): void => {
      for (const [name, node] of dir.current) {
        const path = prefix + name;
        state.set(path, node instanceof FileNode ? node.current : null);
        if (node instanceof DirectoryNode) walk(node, `${path}/`);
      }
    };
    walk(this.#root, '');
    return state;
  }

  /** A state that a power cut may leave now. `next` returns 32 random bits. */
  afterPowerCut(survival: Survival, next: () => number): DiskState {
    const chance = (next() % 9) / 8;
    const happens = (): boolean => next() / 2 ** 32 < chance;
    const decided = new Map<NameChange, boolean>();
    const survives = (change: NameChange, at: number, limit: number): boolean => {
      if (change.durable) return true;
      let decision = decided.get(change);
      if (decision === undefined) {
        decision =
          survival.names === 'all' ||
          (survival.names === 'prefix' && at < limit) ||
          (survival.names === 'some' && happens());
        decided.set(change, decision);
      }
      return decision;
    };
    const state: DiskState = new Map();
    const walk = (dir: DirectoryNode, prefix: string): void => {
      const names = new Map(dir.durable);
      const limit = next() % (dir.pending.length + 1);
      dir.pending.forEach((change, i) => {
        if (!survives(change, i, limit)) return;
        for (const edit of change.edits) {
          if (edit.dir !== dir) continue;
          if (edit.node) names.set(edit.name, edit.node);
          else names.delete(edit.name);
        }
      });
      for (const [name, node] of names) {
        const path = prefix + name;
        if (node instanceof DirectoryNode) {
          state.set(path, null);
          walk(node, `${path}/`);
        } else state.set(path, survivingBytes(node, survival.data, next, happens));
      }
    };
    walk(this.#root, '');
    return state;
  }
}

/** Applies durable changes of names, in the order in which they happened. */
function settle(dir: DirectoryNode): void {
  while (dir.pending[0]?.durable) {
    for (const { dir: of, name, node } of dir.pending.shift()!.edits) {
      if (of !== dir) continue;
      if (node) dir.durable.set(name, node);
      else dir.durable.delete(name);
    }
  }
}

function survivingBytes(
  file: FileNode,
  mode: Survival['data'],
  next: () => number,
  happens: () => boolean,
): Buffer {
  const { pending } = file;
  let bytes: Buffer = file.durable;
  if (mode === 'none' || pending.length === 0) return bytes;
  if (mode === 'all') return pending.reduce(applied, bytes);
  const filler = next() % 4 === 0 ? () => next() & 0xff : () => 0;
  const limit = next() % (pending.length + 1);
  pending.forEach((change, i) => {
    if (change.kind !== 'write') {
      if (mode === 'sizes' || (mode === 'prefix' ? i <= limit : happens())) bytes = applied(bytes, change);
      return;
    }
    const isTorn = mode === 'prefix' && i === limit;
    if (mode === 'prefix' && i > limit) return;
    if (mode === 'prefix' && !isTorn) {
      bytes = applied(bytes, change);
      return;
    }
    if (mode === 'some' && !happens()) return;
    bytes = torn(bytes, change, filler, mode === 'sizes' ? () => false : next() % 2 ? happens : () => true);
  });
  return bytes;
}

/** Applies some sectors of a write. Where the file grows, the missing ones hold bytes from `filler`. */
function torn(bytes: Buffer, change: DataChange, filler: () => number, arrives: () => boolean): Buffer {
  const { offset, bytes: written } = change;
  const end = offset + written.length;
  const result = Buffer.alloc(Math.max(bytes.length, end));
  result.set(bytes);
  for (let at = bytes.length; at < end; at++) result[at] = filler();
  for (let at = offset; at < end; ) {
    const to = Math.min(end, (Math.floor(at / SECTOR_BYTES) + 1) * SECTOR_BYTES);
    if (arrives()) result.set(written.subarray(at - offset, to - offset), at);
    at = to;
  }
  return result;
}

/** Reads the state of a directory. */
export function readState(dir: string): DiskState {
  const state: DiskState = new Map();
  for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
    if (isIgnored(entry.name)) continue;
    const path = join(entry.parentPath, entry.name);
    state.set(path.slice(dir.length + 1), entry.isDirectory() ? null : readFileSync(path));
  }
  return state;
}

/** Writes a state into an empty directory. */
export function writeState(dir: string, state: DiskState): void {
  for (const [path, bytes] of state)
    if (bytes) writeFileSync(join(dir, path), bytes, { mode: 0o600 });
    else mkdirSync(join(dir, path), { mode: 0o700 });
}

/** Lists the differences, one a line. Empty: the states are equal in every byte. */
export function compareStates(expected: DiskState, found: DiskState): string[] {
  const lines: string[] = [];
  for (const path of [...new Set([...expected.keys(), ...found.keys()])].sort()) {
    const a = expected.get(path);
    const b = found.get(path);
    if (a === undefined) lines.push(`${path} exists, but not by the trace`);
    else if (b === undefined) lines.push(`${path} is missing, but exists by the trace`);
    else if ((a === null) !== (b === null))
      lines.push(`${path} is a file on one side and a directory on the other`);
    else if (a && b && !a.equals(b)) lines.push(`${path} has other bytes than by the trace`);
  }
  return lines;
}
