/**
 * The schema of the index: its migrations, and the check that a database has exactly the tables that they make.
 *
 * Invariant: no statement runs on a database whose schema was not checked. A view, trigger or column that livesnap did
 * not make would run with its statements.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type BetterSqlite3 from 'better-sqlite3';
import { LivesnapError } from '../../errors.js';
import { loadSqlite } from '../../native/modules.js';
import { projectRoot } from '../../native/project-root.js';
import { sqliteCode } from '../disk/store-error.js';
import { whenIndexIsFree } from '../disk/waits.js';
import type { Connection } from './connection.js';
import { notAStore } from './index-files.js';
import { useWal } from './journal-mode.js';

const Database = loadSqlite();

/** 'LVSN': PRAGMA application_id of every store.db. */
export const APPLICATION_ID = 0x4c56534e;

/** Since this version, every statement of a reader fits the tables. */
const OLDEST_READABLE = 1;

interface Migration {
  /** The schema version that it leads to. */
  readonly version: number;
  readonly sql: string;
}

let loadedMigrations: Migration[] | undefined;

function migrations(): Migration[] {
  loadedMigrations ??= readdirSync(join(projectRoot, 'migrations'))
    .filter((name) => /^\d{3}_.*\.sql$/.test(name))
    .sort()
    .map((name) => ({
      version: Number(name.slice(0, 3)),
      sql: readFileSync(join(projectRoot, 'migrations', name), 'utf8'),
    }));
  return loadedMigrations;
}

const schemaOf = (database: BetterSqlite3.Database): string =>
  JSON.stringify(
    database.prepare('SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name').raw().all(),
  ) + (hasDistinctRoots(database) ? '' : ' with shared pages');

/**
 * Whether each table and index has a root page of its own. Two with the same root would overwrite each other's rows.
 */
const hasDistinctRoots = (database: BetterSqlite3.Database): boolean =>
  database
    // Page 1 is the root of sqlite_schema.
    .prepare('SELECT count(DISTINCT rootpage) = count(*) AND min(rootpage) > 1 FROM sqlite_schema')
    .pluck()
    .get() !== 0;

const expectedSchemas = new Map<number, string>();

/** The schema that the migrations up to a version make. */
function expectedSchema(version: number): string {
  let schema = expectedSchemas.get(version);
  if (schema === undefined) {
    const fresh = new Database(':memory:');
    for (const migration of migrations()) if (migration.version <= version) fresh.exec(migration.sql);
    schema = schemaOf(fresh);
    fresh.close();
    expectedSchemas.set(version, schema);
  }
  return schema;
}

/**
 * Checks the schema, and brings it up to date when writing. Errors: NOT_A_STORE, NEWER_FORMAT, READ_ONLY (an older
 * format, opened for reading), DAMAGED.
 */
export function migrate(connection: Connection, write: boolean): void {
  const { dir, database } = connection;
  const known = migrations().at(-1)!.version;
  const pragma = (name: string): number => database.pragma(name, { simple: true }) as number;
  // One transaction: another process may be creating the store.
  const read = database.transaction(() => ({
    version: pragma('user_version'),
    isOurs: pragma('application_id') === APPLICATION_ID,
    schema: schemaOf(database),
  }));
  const { version, isOurs, schema } = whenIndexIsFree(() => read());
  // Application ID, version and tables are written in one transaction: a new database has none of them.
  const isNew = !isOurs && version === 0 && schema === expectedSchema(0);
  if (isNew ? !write : !isOurs || version < 1) throw notAStore(dir);
  if (version > known)
    throw new LivesnapError(
      'NEWER_FORMAT',
      `the store ${dir} has index format ${version}; this livesnap knows formats up to ${known}`,
      { hint: 'Use the livesnap that wrote it, or a newer one.' },
    );
  requireSchema(dir, version, schema);
  if (write) useWal(database); // not before: a database of another program stays as it is
  if (version === known) return;
  // Readers change nothing.
  if (!write && version >= OLDEST_READABLE) return;
  if (!write)
    throw new LivesnapError('READ_ONLY', `the store ${dir} has the older index format ${version}`, {
      hint: 'Run livesnap gc once to update the index.',
    });
  // A store on a full disk must open: rm and gc free space there.
  connection.freeingSpace(() =>
    connection.transaction(() => {
      const from = pragma('user_version');
      if (from === known) return; // another process was faster
      requireSchema(dir, from, schemaOf(database));
      for (const { version: to, sql } of migrations()) {
        if (to <= from) continue;
        changeTables(dir, () => database.exec(sql));
        database.pragma(`user_version = ${to}`);
      }
      database.pragma(`application_id = ${APPLICATION_ID}`);
      requireSchema(dir, known, schemaOf(database));
    }),
  );
}

/** Tables are filled with the rows of older ones, which a damaged index need not have right. Errors: DAMAGED. */
function changeTables(dir: string, change: () => void): void {
  try {
    change();
  } catch (error) {
    if (sqliteCode(error) !== 'SQLITE_CONSTRAINT') throw error;
    throw new LivesnapError(
      'DAMAGED',
      `the index of the store ${dir} has wrong rows: ${(error as Error).message}`,
      { hint: 'Run livesnap repair to rebuild the index from the other files of the store.', cause: error },
    );
  }
}

/** Errors: DAMAGED. */
function requireSchema(dir: string, version: number, schema: string): void {
  if (schema !== expectedSchema(version))
    throw new LivesnapError(
      'DAMAGED',
      `the index of the store ${dir} has tables that livesnap did not make`,
      {
        hint: 'Run livesnap repair to rebuild the index from the other files of the store.',
      },
    );
}
