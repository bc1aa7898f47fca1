import type BetterSqlite3 from 'better-sqlite3';
import { removeIfThere } from '../disk/layout.js';
import { whenIndexIsFree } from '../disk/waits.js';

/**
 * Puts the database into WAL mode, where it stays. A creation that was interrupted leaves it in the mode of SQLite's
 * default, and may leave a rollback journal without a valid header. SQLite ignores such a journal, and in WAL mode never
 * deletes it. No journal is in use then: changing the mode needs the database exclusively.
 */
export function useWal(database: BetterSqlite3.Database): void {
  // Not `simple`, which reads one row and misses the error of a commit that fails after it.
  const rows = whenIndexIsFree(() => database.pragma('journal_mode = WAL')) as { journal_mode: string }[];
  if (rows[0]?.journal_mode === 'wal') removeIfThere(`${database.name}-journal`);
}
