/** Gives a store the index that an earlier livesnap would have left. */
import { readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../src/native/addon.js';
import { APPLICATION_ID } from '../../src/store/index/schema.js';
import { Database } from '../sqlite.js';

/**
 * Replaces the index of a closed store by one with the same rows and the schema of an earlier version. That version must
 * be able to hold the rows.
 */
export function makeIndexOlder(dir: string, version: number): void {
  const [path, made] = [join(dir, 'store.db'), join(dir, 'store.db.older')];
  const migrations = readdirSync(join(projectRoot, 'migrations')).sort();
  const database = new Database(made);
  database.pragma('journal_mode = WAL');
  for (const name of migrations)
    if (Number(name.slice(0, 3)) <= version)
      database.exec(readFileSync(join(projectRoot, 'migrations', name), 'utf8'));
  database.prepare('ATTACH ? AS present').run(path);
  database.exec('DELETE FROM main.counters');
  for (const table of ['counters', 'packs', 'segments', 'snapshots', 'tags']) {
    const columns = database
      .prepare(`SELECT name FROM pragma_table_info('${table}')`)
      .pluck()
      .all()
      .join(', ');
    database.exec(`INSERT INTO main.${table} (${columns}) SELECT ${columns} FROM present.${table}`);
  }
  database.exec('DETACH present');
  database.pragma(`user_version = ${version}`);
  database.pragma(`application_id = ${APPLICATION_ID}`);
  database.close();
  for (const suffix of ['-wal', '-shm']) rmSync(path + suffix, { force: true });
  renameSync(made, path);
}
