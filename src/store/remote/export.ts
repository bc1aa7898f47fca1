/**
 * A snapshot as a directory of its own: a store that holds nothing else (docs/copy.md). It can be rsynced, tarred, put
 * on a stick, restored from and imported.
 *
 * Invariants: under its name it is complete. It is made in a directory beside, NAME.partial, which an export that was
 * cut short leaves and the next goes on with. Nothing is removed but what lies in such a directory that has an export's
 * mark; the mark is durable before anything else is there.
 */
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { LivesnapError } from '../../errors.js';
import { tryLock } from '../../native/locks.js';
import type { CopyResult } from '../copy/copy-result.js';
import { requireShortPath } from '../index-files.js';
import {
  fsyncDirectory,
  makeDirectory,
  RESERVE,
  removeIfThere,
  storeError,
  TEMPORARY,
  writeAtomically,
} from '../layout.js';
import { Store } from '../store.js';
import { requireLocal } from './address.js';
import { type CopyRequest, copySnapshots } from './copy.js';
import { requirePlainTree } from './plain-tree.js';

/** What NAME.partial may hold: the mark, with the id of the snapshot, */
const MARK = 'livesnap-export';
/** the store as far as it has come, */
const MADE = 'store';
/** and one of another snapshot, on its way out: renamed first, so that what is at MADE is never half removed. */
const DROPPED = 'dropped';

/** Errors: USAGE (there is something already, or in the way), STORE_BUSY (another export), and those of a copy. */
export async function exportSnapshot(
  request: Omit<CopyRequest, 'direction' | 'remote' | 'refs'> & { ref: string; to: string },
): Promise<CopyResult> {
  const target = resolve(requireLocal(request.to));
  requireFree(target);
  requireShortPath(join(`${target}.partial`, MADE));
  const { fingerprintBits = 64 } = request;
  try {
    const id = withStore(request.storeDir, fingerprintBits, (store) => store.resolve(request.ref));
    const partial = new ExportDirectory(`${target}.partial`);
    try {
      partial.prepare(id, fingerprintBits);
      const made = partial.at(MADE);
      const [result] = await copySnapshots({ ...request, direction: 'to', remote: made, refs: [id] });
      removeIfThere(join(made, RESERVE)); // nobody will write there
      requireFree(target);
      if (existsSync(target)) rmdirSync(target);
      renameSync(made, target);
      fsyncDirectory(dirname(target));
      partial.remove();
      return result!;
    } finally {
      partial.close();
    }
  } catch (error) {
    throw storeError(target, error);
  }
}

/** The directory beside in which an export is made, locked against another export while it lasts. */
class ExportDirectory {
  readonly #fd: number;

  /** Errors: USAGE, STORE_BUSY. */
  constructor(readonly dir: string) {
    if (!lstatSync(dir, { throwIfNoEntry: false })) makeDirectory(dir);
    if (!lstatSync(dir).isDirectory()) throw inTheWay(dir);
    this.#fd = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    if (tryLock(this.#fd, 'exclusive') && fstatSync(this.#fd).nlink > 0) return;
    this.close();
    throw new LivesnapError('STORE_BUSY', `another export is at work in ${dir}`, {
      hint: 'Try again when it is done.',
    });
  }

  at(name: string): string {
    return join(this.dir, name);
  }

  /** Afterwards the directory has the snapshot's mark, and at MADE is nothing or a store of no other snapshot. */
  prepare(id: string, fingerprintBits: number): void {
    const marked = this.#readMark();
    this.#drop();
    if (existsSync(this.at(MADE)) && (marked !== id || !isOf(this.at(MADE), id, fingerprintBits))) {
      renameSync(this.at(MADE), this.at(DROPPED));
      fsyncDirectory(this.dir);
      this.#drop();
    }
    if (marked !== id) writeAtomically(this.at(MARK), `${id}\n`);
  }

  /** The id that the mark names; null where nothing has been begun. Errors: USAGE, when there is anything else. */
  #readMark(): string | null {
    const names = readdirSync(this.dir);
    if (!names.includes(MARK)) {
      // A power cut may leave the mark before it had its name.
      if (names.some((name) => name !== MARK + TEMPORARY)) throw inTheWay(this.dir);
      return null;
    }
    if (names.some((name) => ![MARK, MARK + TEMPORARY, MADE, DROPPED].includes(name)))
      throw inTheWay(this.dir);
    for (const name of [MADE, DROPPED]) if (names.includes(name)) this.#requirePlain(name);
    const mark = lstatSync(this.at(MARK));
    const text = mark.isFile() && mark.size === 33 ? readFileSync(this.at(MARK), 'latin1') : '';
    if (!/^[0-9a-f]{32}\n$/.test(text)) throw inTheWay(this.dir);
    return text.trim();
  }

  #requirePlain(name: string): void {
    try {
      requirePlainTree(this.at(name));
    } catch (error) {
      throw error instanceof LivesnapError ? inTheWay(this.at(name), error) : error;
    }
  }

  #drop(): void {
    rmSync(this.at(DROPPED), { recursive: true, force: true });
  }

  /** The export has its name; what cannot be removed here is in nobody's way but the next export's, which takes it. */
  remove(): void {
    try {
      for (const name of [MARK + TEMPORARY, MARK]) removeIfThere(this.at(name));
      rmdirSync(this.dir);
    } catch (error) {
      if (typeof (error as NodeJS.ErrnoException).code !== 'string') throw error;
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}

const inTheWay = (path: string, cause?: unknown): LivesnapError =>
  new LivesnapError('USAGE', `${path} is in the way, and no export has left it`, {
    hint: 'Move it elsewhere, or export to another name.',
    cause,
  });

function requireFree(target: string): void {
  let names: string[];
  try {
    names = readdirSync(target);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return;
    if (code !== 'ENOTDIR') throw storeError(target, error);
    throw new LivesnapError('USAGE', `${target} is a file`, {
      hint: 'Name a directory that is not there yet.',
    });
  }
  if (names.length > 0)
    throw new LivesnapError('USAGE', `${target} is not empty`, {
      hint: 'Name a directory that is not there yet.',
    });
}

/** Whether what an export left is a store that can be gone on with: it holds no other snapshot. Errors: STORE_BUSY, … */
function isOf(made: string, id: string, fingerprintBits: number): boolean {
  try {
    return withStore(made, fingerprintBits, (store) => store.list().every((summary) => summary.id === id));
  } catch (error) {
    // Cut before it had come to be one, or spoilt since.
    if (error instanceof LivesnapError && (error.code === 'NOT_A_STORE' || error.code === 'DAMAGED'))
      return false;
    throw error;
  }
}

function withStore<T>(dir: string, fingerprintBits: number, work: (store: Store) => T): T {
  const store = Store.open(dir, { write: false, fingerprintBits });
  try {
    return work(store);
  } finally {
    store.close();
  }
}

/** The ids in a directory that came from elsewhere, which is looked at before it is opened. Errors: NOT_A_STORE, … */
export function exportedSnapshots(dir: string, fingerprintBits = 64): string[] {
  requirePlainTree(dir);
  return withStore(dir, fingerprintBits, (store) => store.list().map(({ id }) => id));
}

/** Takes every snapshot of such a directory. Errors: NOT_A_STORE, and those of a copy. */
export async function importSnapshots(
  request: Omit<CopyRequest, 'direction' | 'remote' | 'refs'> & { from: string },
): Promise<CopyResult[]> {
  const from = resolve(requireLocal(request.from));
  const refs = exportedSnapshots(from, request.fingerprintBits);
  return copySnapshots({ ...request, direction: 'from', remote: from, refs });
}
