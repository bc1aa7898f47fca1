/**
 * `DIR FILE CASE`: maps a segment, causes the SIGBUS of the case, truncates the segment, and prints a word of an entry
 * beyond the new end and how many places are found for it.
 */
import { closeSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { pageOps } from '../../src/native/pages.js';
import { mapSegment } from '../../src/store/segment/segment-file.js';
import { writeSegment } from '../../src/store/segment/segment-writer.js';
import { Database } from '../sqlite.js';

const [dir, file, which] = process.argv.slice(2) as [string, string, string];

/** `heard`: a handler is installed before anything is mapped, and stays. */
const heard =
  which === 'heard' ? new Promise<void>((resolve) => process.on('SIGBUS', () => resolve())) : null;

const words = new Uint32Array(4 * 10_000).map((_, i) => (i % 4 === 1 ? i : 1));
const { row, fd } = writeSegment(pageOps, dir, 7, [words], words.length / 4)!;
closeSync(fd);
const segment = mapSegment(dir, row)!;

if (which === 'sent' || which === 'heard') {
  process.kill(process.pid, 'SIGBUS');
  if (which === 'sent') console.log('survived');
  const awake = setInterval(() => {}, 1000); // a signal handler does not keep the process alive
  await heard;
  clearInterval(awake);
} else if (which === 'elsewhere') {
  // SQLite maps its database. Within a transaction it does not check whether the file was truncated.
  const path = join(dir, 'elsewhere.db');
  const db = new Database(path);
  db.pragma('mmap_size = 1000000');
  db.exec('CREATE TABLE t (id INTEGER PRIMARY KEY, bytes BLOB)');
  for (let id = 0; id < 50; id++) db.prepare('INSERT INTO t VALUES (?, zeroblob(4000))').run(id);
  db.close();
  const mapped = new Database(path);
  mapped.pragma('mmap_size = 1000000');
  mapped.exec('BEGIN');
  mapped.prepare('SELECT bytes FROM t WHERE id = 0').get();
  truncateSync(path, 4096);
  mapped.prepare('SELECT bytes FROM t WHERE id = 49').get();
}

truncateSync(join(dir, file), 8192);
const places = new Uint32Array(16);
console.log(segment.words[4 * 9_000 + 1], segment.find(1, 4 * 9_000 + 1, places, 0));
