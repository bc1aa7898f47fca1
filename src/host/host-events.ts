/**
 * Tells of changes of machines and snapshots: it compares what there is with what there was, when the kernel tells that
 * files have changed, and every two seconds.
 *
 * Invariants:
 * - It watches only while someone reads. The log and the last state stay, so a reader that comes back gets the changes
 *   since then.
 * - One look at a time. Wishes that come meanwhile make one more look.
 * - The store is open only while snapshots are listed, and they are listed only if the store's files have changed.
 * - A slow reader costs nothing: events wait in the log, which is bounded.
 */
import { type FSWatcher, watch } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { runRoot } from '../environment.js';
import { LivesnapError } from '../errors.js';
import { listRunDirectories } from '../machine/run-directory.js';
import type { SnapshotSummary } from '../page-stream.js';
import { at, DATABASE, SNAPSHOT_ID, SNAPSHOTS, TAGS } from '../store/disk/layout.js';
import { unlessAborted } from '../unless-aborted.js';
import type { CallOptions } from './call-options.js';
import { EventLog, type Logged } from './event-log.js';
import {
  changesBetween,
  type HostChange,
  type HostState,
  type MachineFacts,
  machineFacts,
} from './host-state.js';

export interface EventOptions extends CallOptions {
  /** The position of the last event that the reader knows. Default: it knows nothing. */
  readonly after?: string | undefined;
}

/** A change, or the whole state, for a reader who knows nothing or has missed too much. */
export type HostEvent =
  | Logged<HostChange>
  | ({ readonly type: 'state'; readonly position: string } & HostState);

/** The kernel does not tell of a process that was killed, nor of changes that another host makes. */
const SWEEP_MS = 2000;
/** Files change several times for one event. */
const SETTLE_MS = 30;
/** The file of a snapshot is there before the snapshot. Then the next looks come soon. */
const COMMIT_WAIT_MS = 250;
const MAX_COMMIT_WAITS = 8;

/** What a change of the store changes. */
const STORE_FILES = [DATABASE, `${DATABASE}-wal`, SNAPSHOTS, TAGS];

export class HostEvents {
  readonly #log: EventLog<HostChange>;
  readonly #watchers = new Map<string, FSWatcher>();
  readonly #waiting = new Set<() => void>();
  #state: HostState | null = null;
  #readers = 0;
  #sweep: NodeJS.Timeout | undefined;
  #soon: NodeJS.Timeout | undefined;
  #looking: Promise<void> | null = null;
  #lookAgain = false;
  /** The status of the store's files when its snapshots were listed. */
  #listedAt = '';
  #commitWaits = 0;

  /** `list`: lists the snapshots of the store in `storeDir`. */
  constructor(
    readonly storeDir: string,
    readonly list: () => Promise<readonly SnapshotSummary[]>,
    logLimit?: number,
  ) {
    this.#log = new EventLog(logLimit);
  }

  /** Errors: the signal's reason, and those of the first look. */
  async *read({ after, signal }: EventOptions = {}): AsyncGenerator<HostEvent, never, undefined> {
    signal?.throwIfAborted();
    if (this.#readers++ === 0) this.#sweep = setInterval(() => this.#lookSoon(0), SWEEP_MS);
    try {
      await unlessAborted(signal, this.#look());
      let position = after ?? '';
      for (;;) {
        const changes = this.#log.since(position);
        if (changes === null) {
          position = this.#log.position;
          yield { type: 'state', position, ...this.#state! };
        } else if (changes.length === 0) await unlessAborted(signal, this.#change());
        else
          for (const change of changes) {
            signal?.throwIfAborted();
            position = change.position;
            yield change;
          }
        signal?.throwIfAborted();
      }
    } finally {
      if (--this.#readers === 0) this.#stop();
    }
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.add(resolve));
  }

  #stop(): void {
    clearInterval(this.#sweep);
    clearTimeout(this.#soon);
    this.#soon = undefined;
    for (const watcher of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
    this.#waiting.clear();
  }

  #lookSoon(waitMs: number): void {
    if (this.#readers === 0) return;
    this.#soon ??= setTimeout(() => {
      this.#soon = undefined;
      // A later look tries again. The reader has the state of the last one.
      this.#look().catch(() => {});
    }, waitMs);
  }

  /** Resolves after a look that begins after this call. */
  async #look(): Promise<void> {
    if (this.#looking !== null) {
      this.#lookAgain = true;
      return this.#looking;
    }
    this.#looking = (async () => {
      do {
        this.#lookAgain = false;
        await this.#lookOnce();
      } while (this.#lookAgain);
    })();
    try {
      await this.#looking;
    } finally {
      this.#looking = null;
    }
  }

  async #lookOnce(): Promise<void> {
    const folders = [SNAPSHOTS, TAGS].map((name) => at(this.storeDir, name));
    // To watch a path takes this thread, which a file system that does not answer would stop. So it is asked before.
    for (const path of folders) await stat(path).catch(() => {});
    const always = [runRoot(), ...folders];
    this.#watch(always); // before they are read
    const directories = await listRunDirectories(runRoot());
    const paths = directories.map(({ path }) => path);
    this.#unwatchAllBut([...always, ...paths]);
    this.#watch(paths);
    const machines = (await Promise.all(directories.map(machineFacts))).filter(
      (facts): facts is MachineFacts => facts !== null,
    );
    const state = { machines, snapshots: await this.#snapshots() };
    if (this.#state !== null) this.#log.append(changesBetween(this.#state, state));
    this.#state = state;
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  async #snapshots(): Promise<readonly SnapshotSummary[]> {
    const known = this.#state?.snapshots ?? null;
    const status = await this.#storeStatus();
    if (known !== null && status === this.#listedAt) return known;
    try {
      const snapshots = await this.list();
      this.#listedAt = status;
      await this.#awaitCommits(snapshots);
      return snapshots;
    } catch (error) {
      if (error instanceof LivesnapError && error.code === 'NO_SUCH_FILE') return [];
      // A store that is being repaired, for example, has lost nothing.
      if (known === null) throw error;
      return known;
    }
  }

  async #storeStatus(): Promise<string> {
    const all: string[] = [];
    // One after the other: a file system that does not answer takes one of the few threads that Node has for files.
    for (const name of STORE_FILES)
      all.push(
        await stat(at(this.storeDir, name), { bigint: true }).then(
          ({ ino, size, mtimeNs }) => `${ino} ${size} ${mtimeNs}`,
          () => '-',
        ),
      );
    return all.join();
  }

  /** Looks again soon if a file of a snapshot shows that one is about to be committed. */
  async #awaitCommits(snapshots: readonly SnapshotSummary[]): Promise<void> {
    const listed = new Set(snapshots.map(({ id }) => id));
    const files = await readdir(at(this.storeDir, SNAPSHOTS)).catch(() => []);
    const isPending = files.some((name) => SNAPSHOT_ID.test(name) && !listed.has(name));
    if (isPending && this.#commitWaits++ < MAX_COMMIT_WAITS) this.#lookSoon(COMMIT_WAIT_MS);
    else if (!isPending) this.#commitWaits = 0;
  }

  #unwatchAllBut(paths: readonly string[]): void {
    for (const path of this.#watchers.keys()) if (!paths.includes(path)) this.#unwatch(path);
  }

  /** Where the kernel does not tell of changes, for example because a user watches too many files, sweeps find them. */
  #watch(paths: readonly string[]): void {
    for (const path of paths) {
      if (this.#watchers.has(path)) continue;
      try {
        const watcher = watch(path, (_, name) => {
          // The watcher of a directory that was deleted or renamed tells nothing of a new one.
          if (name !== null && path.endsWith(`/${name}`)) this.#unwatch(path);
          this.#commitWaits = 0;
          this.#lookSoon(SETTLE_MS);
        });
        watcher.on('error', () => this.#unwatch(path));
        this.#watchers.set(path, watcher);
      } catch {}
    }
  }

  #unwatch(path: string): void {
    this.#watchers.get(path)?.close();
    this.#watchers.delete(path);
  }
}
