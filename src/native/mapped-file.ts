/**
 * Files mapped for reading. A page that cannot be read (a bad sector, a file cut short) reads as zeros instead of
 * ending the process, so only what may be wrong without harm is read this way.
 */
import { addon } from './addon.js';

interface MappedFile {
  mapFile(fd: number, length: number): ArrayBuffer;
  unmapFile(mapped: ArrayBuffer): void;
}

const native = addon as unknown as MappedFile;

/** Unmaps at once what {@link mapFile} gave; its views are empty afterwards. */
export const unmapFile = ({ buffer }: { buffer: ArrayBufferLike }): void =>
  native.unmapFile(buffer as ArrayBuffer);

/** The first `length` bytes of a file, never to be written to; unmapped when it is collected. Errors: SYSTEM. */
export const mapFile = (fd: number, length: number): Uint8Array => new Uint8Array(native.mapFile(fd, length));
