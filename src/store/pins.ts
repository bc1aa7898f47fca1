/**
 * Pins: a session that reads a snapshot holds a shared lock on its file. Even if the snapshot is removed from the index
 * meanwhile, `rm` leaves the file and gc keeps the chunks that it needs (docs/format.md, "Locks").
 */
import { closeSync } from 'node:fs';
import { LivesnapError } from '../errors.js';
import type { StoreContext } from './context.js';
import { isReadableFile, openShared } from './disk/file-locks.js';
import { at } from './disk/layout.js';
import { waitAStep } from './disk/waits.js';
import { snapshotFile } from './snapshot/snapshot-file.js';
import type { SnapshotSummary } from './types.js';

/** How often to retry a file that gc has locked. */
const TRIES = 500;

export class Pin {
  #fd: number | null;

  private constructor(
    /** The index entry, read after the file was pinned. */
    readonly summary: SnapshotSummary,
    fd: number | null,
  ) {
    this.#fd = fd;
  }

  /**
   * Pins the snapshot whose ID `resolve` returns. It is called again if that snapshot was removed meanwhile. If the
   * index lists the snapshot but its file cannot be opened, the pin is empty: reading the file reports the damage.
   * Errors: those of `resolve`, STORE_BUSY.
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
