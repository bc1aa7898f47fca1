/**
 * Pins: a session that reads a snapshot holds a shared lock on its file. Even if the snapshot is removed from the index
 * meanwhile, `rm` leaves the file and gc keeps the chunks that it needs (docs/format.md, "Locks").
 *
 * Pins of one thread share the lock. A snapshot that was removed can be pinned again as long as one of them lasts.
 */
import { closeSync } from 'node:fs';
import { LivesnapError } from '../errors.js';
import type { StoreContext } from './context.js';
import { isNameOf, isReadableFile, openShared } from './disk/file-locks.js';
import { at } from './disk/layout.js';
import { waitAStep } from './disk/waits.js';
import { snapshotFile } from './snapshot/snapshot-file.js';
import type { SnapshotSummary } from './types.js';

/** How often to retry a file that gc has locked. */
const TRIES = 500;

/** A lock on the file of a snapshot, and how many pins share it. */
interface Hold {
  readonly summary: SnapshotSummary;
  readonly fd: number;
  pins: number;
}

/**
 * The locks that this thread holds, by store and snapshot. A file that repair has set aside loses its place to one that
 * comes back under the same name.
 */
const holds = new Map<string, Hold>();

const holdName = (context: StoreContext, id: string): string => `${id} ${context.key}`;

/** The lock that this thread holds on the file that has this path now. */
function heldFile(name: string, path: string): Hold | null {
  const hold = holds.get(name);
  return hold && isNameOf(path, hold.fd) ? hold : null;
}

export class Pin {
  #isReleased = false;

  private constructor(
    /** The index entry, read after the file was pinned. */
    readonly summary: SnapshotSummary,
    readonly name: string,
    readonly hold: Hold | null,
  ) {
    if (!hold) return;
    hold.pins++;
    holds.set(name, hold);
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
      const name = holdName(context, id);
      const known = heldFile(name, path);
      if (summary && fd !== null && known) {
        closeSync(fd);
        return new Pin(summary, name, known);
      }
      if (summary && fd !== null) return new Pin(summary, name, { summary, fd, pins: 0 });
      if (summary && !isReadableFile(path)) return new Pin(summary, name, null);
      if (fd !== null) closeSync(fd);
      waitAStep();
    }
    throw new LivesnapError('STORE_BUSY', 'the snapshot is being removed', { hint: 'Try again.' });
  }

  /** Another pin of a snapshot that this thread has pinned, even if it is removed. Null: it has not. */
  static again(context: StoreContext, id: string): Pin | null {
    const name = holdName(context, id);
    const hold = heldFile(name, at(context.dir, snapshotFile(id)));
    return hold && new Pin(hold.summary, name, hold);
  }

  /** Another pin of the same snapshot. */
  share(): Pin {
    return new Pin(this.summary, this.name, this.hold);
  }

  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    const { hold, name } = this;
    if (!hold || --hold.pins > 0) return;
    if (holds.get(name) === hold) holds.delete(name);
    closeSync(hold.fd);
  }
}
