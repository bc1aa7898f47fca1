/**
 * Files mapped for reading. A page that cannot be read (a bad sector, a file cut short) reads as zeros instead of
 * ending the process, so only what may be wrong without harm is read this way.
 */
import { addon } from './addon.js';

interface MappedFile {
  mapFile(fd: number, length: number): ArrayBuffer;
}

const native = addon as unknown as MappedFile;

/** The first `length` bytes of a file, never to be written to; unmapped when it is collected. Errors: SYSTEM. */
export const mapFile = (fd: number, length: number): Uint8Array => new Uint8Array(native.mapFile(fd, length));
