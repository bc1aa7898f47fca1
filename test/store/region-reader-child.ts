/**
 * Reads a region in a process that lacks descriptors, or whose disk fails (region-reader.test.ts). Arguments: the store,
 * an ID, a region. Prints what the reads returned when no descriptor was free, and when one was, and the bytes.
 */
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { openRegionReader, readRegion, regionReaderError } from '../../src/native/region-reader.js';
import { blocksOf } from './regions.js';

const [, , dir, id, name] = process.argv as [string, string, string, string, string];
const { sizeBytes, blocks } = blocksOf(dir, id, name);
const reader = openRegionReader({ packsDir: join(dir, 'packs'), sizeBytes, blocks });
const bytes = Buffer.alloc(sizeBytes);
const read = () => ({ errno: readRegion(reader, 0, bytes), error: regionReaderError(reader) });

const fds: number[] = [];
try {
  for (;;) fds.push(openSync('/dev/null', 'r'));
} catch {
  // None is left.
}
const withNone = read();
closeSync(fds.pop()!);
const withOne = read();
for (const fd of fds) closeSync(fd);
console.log(JSON.stringify({ withNone, withOne, bytes: bytes.toString('base64') }));
