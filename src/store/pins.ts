/**
 * Pins: a session that reads a snapshot shares the lock of its file, so that `rm` leaves the file and gc counts what
 * the snapshot needs as needed, whatever the index says meanwhile (docs/format.md, "Locks").
 */
import { closeSync } from 'node:fs';
import { LivesnapError } from '../errors.js';
import type { StoreContext } from './context.js';
import { isReadableFile, openShared } from './disk/file-locks.js';
import { at } from './disk/layout.js';
import { waitAStep } from './disk/waits.js';
import { snapshotFile } from './snapshot/snapshot-file.js';
import type { SnapshotSummary } from './types.js';

/** How often a file that gc is looking at is tried again. */
const TRIES = 500;

export class Pin {
  #fd: number | null;

  private constructor(
    /** What the index said when the file had been pinned. */
    readonly summary: SnapshotSummary,
    fd: number | null,
  ) {
    this.#fd = fd;
  }

  /**
   * Pins the snapshot that `resolve` names, which is asked again when that snapshot has just gone. A snapshot that is
   * in the index but whose file is missing, is no file or cannot be opened gets an empty pin: reading it will say so. Errors: those of
   * `resolve`, STORE_BUSY.
   */
  static take(context: StoreContext, resolve: () => string): Pin {
    for (let tries = 0; tries < TRIES; tries++) {
      const id = resolve();
      const path = at(context.dir, snapshotFile(id));
      const fd = openShared(path);
      const summary = context.index.summary(id);
      if (summary && (fd !== null || !isReadableFile(path))) return new Pin(summary, fd);
      if (fd !== null) closeSync(fd);
      waitAStep();
    }
    throw new LivesnapError('STORE_BUSY', 'the snapshot is being removed', { hint: 'Try again.' });
  }

  release(): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }
}
