/** `DIR FILE`: maps a segment, cuts it short, and prints an entry that is no longer there and what is found for it. */
import { closeSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { pageOps } from '../../src/native/pages.js';
import { mapSegment } from '../../src/store/segment-file.js';
import { writeSegment } from '../../src/store/segment-writer.js';

const [dir, file] = process.argv.slice(2) as [string, string];
const words = new Uint32Array(4 * 10_000).map((_, i) => (i % 4 === 1 ? i : 1));
const { row, fd } = writeSegment(pageOps, dir, 7, [words], words.length / 4)!;
closeSync(fd);
const segment = mapSegment(dir, row)!;
truncateSync(join(dir, file), 8192);
const places = new Uint32Array(16);
console.log(segment.words[4 * 9_000 + 1], segment.find(1, 4 * 9_000 + 1, places, 0));
