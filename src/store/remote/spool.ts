/**
 * A file without a name in a store's file system: what a copy has to put somewhere for a while. It goes with the
 * process, whatever becomes of that.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, ftruncateSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { createLocked } from '../file-locks.js';
import { at, PACKS, storeError, TEMPORARY } from '../layout.js';

export class Spool {
  readonly #fd: number;
  #sizeBytes = 0;
  /** What kept it from being written; it is this machine's fault, not the other side's. */
  failure: unknown = null;

  /** Errors: NO_SPACE, READ_ONLY, … */
  constructor(readonly dir: string) {
    // A cut between making and unlinking leaves a name that gc takes; the lock keeps it from doing so before.
    const path = at(dir, `${PACKS}/copy-${randomBytes(8).toString('hex')}${TEMPORARY}`);
    try {
      this.#fd = createLocked(path);
      unlinkSync(path);
    } catch (error) {
      throw storeError(dir, error);
    }
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Appends; errors: as the constructor. */
  append(bytes: Uint8Array): void {
    try {
      for (let done = 0; done < bytes.length; ) {
        const wrote = writeSync(this.#fd, bytes, done, bytes.length - done, this.#sizeBytes);
        done += wrote;
        this.#sizeBytes += wrote;
      }
    } catch (error) {
      this.failure = storeError(this.dir, error);
      throw this.failure;
    }
  }

  read(into: Uint8Array, offset: number, length: number, position: number): number {
    return readSync(this.#fd, into, offset, Math.min(length, this.#sizeBytes - position), position);
  }

  /** Forgets everything. */
  clear(): void {
    ftruncateSync(this.#fd, 0);
    this.#sizeBytes = 0;
  }

  close(): void {
    closeSync(this.#fd);
  }
}
