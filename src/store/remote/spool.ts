/**
 * An unnamed temporary file in the file system of a store, for fetched data. The kernel removes it when the process
 * ends, however it ends.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, ftruncateSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { createLocked } from '../disk/file-locks.js';
import { at, PACKS, storeError, TEMPORARY } from '../disk/layout.js';

export class Spool {
  readonly #fd: number;
  #sizeBytes = 0;
  /** The first failed write. It is the fault of this machine, not of the remote. */
  failure: unknown = null;

  /** Errors: NO_SPACE, READ_ONLY, … */
  constructor(readonly dir: string) {
    // A crash before the unlink leaves a name, which gc removes. The lock keeps gc away until then.
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

  /** Errors: as for the constructor. */
  append(bytes: Uint8Array): void {
    try {
      for (let done = 0; done < bytes.length; ) {
        const written = writeSync(this.#fd, bytes, done, bytes.length - done, this.#sizeBytes);
        done += written;
        this.#sizeBytes += written;
      }
    } catch (error) {
      this.failure = storeError(this.dir, error);
      throw this.failure;
    }
  }

  read(into: Uint8Array, offset: number, length: number, position: number): number {
    return readSync(this.#fd, into, offset, Math.min(length, this.#sizeBytes - position), position);
  }

  clear(): void {
    ftruncateSync(this.#fd, 0);
    this.#sizeBytes = 0;
  }

  close(): void {
    closeSync(this.#fd);
  }
}
