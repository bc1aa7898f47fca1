/**
 * The working sets of snapshots: which pages of RAM a restored machine, or its host, waited for first. The next restore
 * of the snapshot on this host begins with these. One small file for each snapshot, in a directory of caches.
 *
 * Thread: the main thread, which waits for no file.
 *
 * Invariants:
 * - A working set is a hint. Without it, or with a wrong one, a restore is slower and otherwise the same.
 * - It is not in the store: a store is copied between hosts and may be read-only, and its files are checked one by one.
 * - The directory has at most {@link MAX_SETS} sets, and loses the oldest.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { mkdir, open, readdir, rename, stat, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const VERSION = 1;
const MAX_SETS = 256;
/** As many as a fill reports: 16 GiB of RAM. */
const MAX_WINDOWS = 65_536;
const MAX_FILE_BYTES = 2 << 20;
const ID = /^[0-9a-f]{32}$/;

/** Pair and page, in turn, as MemoryFill.faults. */
export type WorkingSet = Uint32Array<ArrayBufferLike>;

const NONE: WorkingSet = new Uint32Array(0);

export class WorkingSets {
  /** `log` gets a sentence when a set cannot be kept. */
  constructor(
    readonly dir: string,
    readonly log: (sentence: string) => void,
  ) {}

  #fileOf(id: string): string {
    assert(ID.test(id), 'not a snapshot ID');
    return join(this.dir, id);
  }

  /** Empty when there is none. */
  async read(id: string): Promise<WorkingSet> {
    try {
      const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
      const file = await open(this.#fileOf(id), flags);
      try {
        const found = await file.stat();
        if (!found.isFile() || found.size > MAX_FILE_BYTES) return NONE;
        return decode(await file.readFile('utf8')) ?? NONE;
      } finally {
        await file.close();
      }
    } catch {
      return NONE; // a hint that cannot be read is none
    }
  }

  /** Keeps the set of a snapshot. Does not fail. */
  async keep(id: string, set: WorkingSet): Promise<void> {
    const path = this.#fileOf(id);
    const temporary = `${path}.${randomBytes(4).toString('hex')}.tmp`;
    try {
      await mkdir(this.dir, { recursive: true, mode: 0o700 });
      await writeFile(temporary, encode(set), { mode: 0o600, flag: 'wx' });
      await rename(temporary, path);
      await this.#dropOldest();
    } catch (error) {
      await unlink(temporary).catch(() => {}); // it may not exist
      this.log(`the working set of snapshot ${id} was not kept: ${(error as Error).message}`);
    }
  }

  async #dropOldest(): Promise<void> {
    const names = await readdir(this.dir);
    if (names.length <= MAX_SETS) return;
    const files = await Promise.all(
      names.map(async (name) => {
        const path = join(this.dir, name);
        return {
          path,
          ms: await stat(path).then(
            ({ mtimeMs }) => mtimeMs,
            () => 0,
          ),
        };
      }),
    );
    files.sort((a, b) => a.ms - b.ms);
    // Another process may have dropped it.
    for (const { path } of files.slice(0, files.length - MAX_SETS)) await unlink(path).catch(() => {});
  }
}

/** The windows of both sets, each once, those of `first` first; null when `then` has nothing new. */
export function joined(first: WorkingSet, then: WorkingSet): WorkingSet | null {
  const seen = new Set<number>();
  const words: number[] = [];
  const take = (set: WorkingSet): void => {
    for (let i = 0; i + 1 < set.length && words.length < 2 * MAX_WINDOWS; i += 2) {
      const key = set[i]! * 2 ** 32 + set[i + 1]!;
      if (seen.has(key)) continue;
      seen.add(key);
      words.push(set[i]!, set[i + 1]!);
    }
  };
  take(first);
  const known = words.length;
  take(then);
  return words.length === known ? null : Uint32Array.from(words);
}

const encode = (set: WorkingSet): string => JSON.stringify({ version: VERSION, windows: [...set] });

const isWord = (value: unknown): boolean =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 2 ** 32;

/** Null for anything but what {@link encode} makes. */
function decode(text: string): WorkingSet | null {
  const { version, windows } = (JSON.parse(text) ?? {}) as { version?: unknown; windows?: unknown };
  if (version !== VERSION || !Array.isArray(windows) || windows.length % 2 !== 0) return null;
  if (windows.length > 2 * MAX_WINDOWS || !windows.every(isWord)) return null;
  return Uint32Array.from(windows as number[]);
}
