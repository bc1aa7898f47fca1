/** Reads a region where almost no descriptor is left (region-reader.test.ts). Arguments: the store, an ID, a region. */
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { openRegionReader, readRegion, regionReaderError } from '../../src/native/region-reader.js';
import { blocksOf } from './regions.js';

const [, , dir, id, name] = process.argv as [string, string, string, string, string];
const { sizeBytes, blocks } = blocksOf(dir, id, name);
const reader = openRegionReader({ packsDir: join(dir, 'packs'), sizeBytes, blocks });
const bytes = Buffer.alloc(sizeBytes);

const fds: number[] = [];
try {
  for (;;) fds.push(openSync('/dev/null', 'r'));
} catch {
  // None is left.
}
const withoutAny = readRegion(reader, 0, bytes);
const why = regionReaderError(reader)?.why;
closeSync(fds.pop()!);
const withOne = readRegion(reader, 0, bytes);
for (const fd of fds) closeSync(fd);
console.log(JSON.stringify({ withoutAny, why, withOne }));
process.stdout.write(`${bytes.toString('base64')}\n`);
