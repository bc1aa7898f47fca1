/**
 * Changes all pack rows of the store `DIR` in one transaction, and empties the log. The first run adds enough rows to
 * make the database larger than 1 MiB.
 */
import { join } from 'node:path';
import { Database } from '../sqlite.js';

const ROWS = 100_000;
const database = new Database(join(process.argv[2]!, 'store.db'));
database.exec(`
  WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ${ROWS})
  INSERT OR IGNORE INTO packs (number, generation, chunks, sizeBytes) SELECT n, 0, 1, 1 FROM numbers`);
database.exec('UPDATE packs SET sizeBytes = sizeBytes + 1');
database.pragma('wal_checkpoint(TRUNCATE)');
database.close();
