/**
 * The index of a store: the SQLite database `store.db` (docs/format.md, "Index"; schema in migrations/).
 *
 * Invariants: every write is one immediate transaction at synchronous=FULL; no statement is run per page or chunk;
 * everything in it can be rebuilt from the files beside it; no row leaves it before it was looked at (index-rows.ts).
 * Where the directory cannot be written, a private copy is read: a WAL database does not open there.
 */
import { hash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import type BetterSqlite3 from 'better-sqlite3';
import { temporaryDirectory } from '../../environment.js';
import { LivesnapError } from '../../errors.js';
import { loadSqlite } from '../../native/modules.js';
import { projectRoot } from '../../native/project-root.js';
import type { SnapshotKind, SnapshotSummary } from '../../page-stream.js';
import type { DamageError } from '../disk/damage.js';
import {
  at,
  DATABASE,
  FILE_MODE,
  fsyncDirectory,
  giveToOwner,
  INDEX_LOCK,
  MAX_NUMBER,
  PACKS,
  RESERVE,
  removeIfThere,
  requirePlainIndex,
  storeError,
} from '../disk/layout.js';
import { sqliteCode } from '../disk/store-error.js';
import { StoreLock } from '../disk/store-lock.js';
import { whenIndexIsFree } from '../disk/waits.js';
import type { SegmentRow } from '../segment/segment-file.js';
import type { SnapshotFile } from '../snapshot/snapshot-file.js';
import type { TagMove } from '../types.js';
import {
  canOpenInPlace,
  copyIndex,
  hasOtherLinks,
  lockForWriting,
  requireWritableIndex,
} from './index-files.js';
import { damaged, type Table, wrongRow } from './index-rows.js';

const Database = loadSqlite();

/** 'LVSN': PRAGMA application_id of every store.db. */
export const APPLICATION_ID = 0x4c56534e;
/** SQLite does not wait for other connections: {@link whenIndexIsFree} does. */
const BUSY_TIMEOUT_MS = 0;

export interface SnapshotRow {
  readonly id: string;
  readonly kind: SnapshotKind;
  readonly vm: string | null;
  readonly parent: string | null;
  readonly createdAt: string;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  readonly storedBytes: number;
  readonly logicalBytes: number;
  readonly nonZeroPages: number;
}

/** The row of a snapshot, all of it from its file. */
export function snapshotRow({
  description,
  sizeBytes,
}: Pick<SnapshotFile, 'description' | 'sizeBytes'>): SnapshotRow {
  const { id, kind, vm, parent, createdAt, memoryBytes, diskBytes, packBytes, regions } = description;
  return {
    ...{ id, kind, vm, parent, createdAt, memoryBytes, diskBytes },
    storedBytes: packBytes + sizeBytes,
    logicalBytes: regions.reduce((total, region) => total + region.sizeBytes, 0),
    nonZeroPages: regions.reduce((total, region) => total + region.nonZeroPages, 0),
  };
}

export interface PackRow {
  readonly number: number;
  readonly generation: number;
  readonly chunks: number;
  readonly sizeBytes: number;
}

/** Told of a row that cannot be, which is then left out. */
export type OnWrongRow = (problem: DamageError) => void;

const refuse: OnWrongRow = (problem) => {
  throw problem;
};

interface Migration {
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
  ) + (hasOwnRoots(database) ? '' : ' with shared pages');

/** Whether each table and index has a root page of its own. Two with one root would overwrite each other's rows. */
const hasOwnRoots = (database: BetterSqlite3.Database): boolean =>
  database
    .prepare('SELECT count(DISTINCT rootpage) = count(*) AND min(rootpage) > 1 FROM sqlite_schema') // 1 is the schema's
    .pluck()
    .get() !== 0;

const knownSchemas = new Map<number, string>();

/** The schema that the migrations up to a version make. */
function expectedSchema(version: number): string {
  let schema = knownSchemas.get(version);
  if (schema === undefined) {
    const fresh = new Database(':memory:');
    for (const migration of migrations()) if (migration.version <= version) fresh.exec(migration.sql);
    schema = schemaOf(fresh);
    fresh.close();
    knownSchemas.set(version, schema);
  }
  return schema;
}

/** What SQLite and the system say of a full disk. */
const MAY_BE_FULL = new Set(['SQLITE_FULL', 'SQLITE_CANTOPEN', 'SQLITE_IOERR', 'ENOSPC', 'EDQUOT']);
const isFull = (error: unknown): boolean =>
  ['SQLITE_FULL', 'ENOSPC', 'EDQUOT'].includes(sqliteCode(error) ?? (error as { code: string }).code);

/** Whatever keeps a private copy of the index from being made is not the store's fault. */
const noScratch = (error: Error): LivesnapError =>
  new LivesnapError(
    'SYSTEM',
    `cannot copy the index to the directory ${temporaryDirectory()}: ${error.message}`,
    { hint: 'Free space there, or name another directory with TMPDIR.', cause: error },
  );

/** A directory for a copy of the index. Errors: SYSTEM. */
function makeScratch(): string {
  const parent = temporaryDirectory();
  try {
    return mkdtempSync(join(parent, 'livesnap-index-'));
  } catch (error) {
    throw noScratch(error as Error);
  }
}

/** SQLite gives its log and shared memory the owner of the database, when root makes them. */
function makeDatabase(path: string): void {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, FILE_MODE);
  try {
    giveToOwner(path, fd);
  } finally {
    closeSync(fd);
  }
}

export class Index {
  readonly #statements = new Map<string, BetterSqlite3.Statement<unknown[]>>();

  private constructor(
    readonly dir: string,
    readonly database: BetterSqlite3.Database,
    /** Shared while store.db is open; null for a private copy. */
    readonly lock: StoreLock | null,
  ) {}

  /** Makes the database of a new store, or finishes one that a crash left empty. */
  static create(dir: string, file = DATABASE): Index {
    const path = at(dir, file);
    const lock = file === DATABASE ? StoreLock.acquireSync(dir, 'shared', INDEX_LOCK) : null;
    try {
      makeDatabase(path);
      chmodSync(path, FILE_MODE); // SQLite gives -wal and -shm the mode of the database
      const database = new Database(path, { timeout: BUSY_TIMEOUT_MS });
      whenIndexIsFree(() => database.pragma('journal_mode = WAL'));
      return Index.#prepare(dir, database, lock, true);
    } catch (error) {
      lock?.release();
      throw storeError(dir, error);
    }
  }

  /** Errors: NOT_A_STORE, NEWER_FORMAT, READ_ONLY, NO_PERMISSION, NO_SPACE, STORE_BUSY, DAMAGED. */
  static open(dir: string, write: boolean): Index {
    requirePlainIndex(dir);
    if (!write && !canOpenInPlace(dir)) return Index.#openCopy(dir);
    let lock: StoreLock | null = null;
    try {
      if (write) requireWritableIndex(dir);
      lock = write ? lockForWriting(dir) : StoreLock.acquireSync(dir, 'shared', INDEX_LOCK);
      // Whoever closes a database moves the log into it, readers too, unless it is open for reading only.
      const readonly = !write && hasOtherLinks(dir);
      const options = { timeout: BUSY_TIMEOUT_MS, fileMustExist: true, readonly };
      const database = new Database(at(dir, DATABASE), options);
      return Index.#prepare(dir, database, lock, write);
    } catch (error) {
      lock?.release();
      // A full disk has no room for the files that SQLite wants beside a WAL database.
      if (MAY_BE_FULL.has(sqliteCode(error) ?? (error as { code?: string }).code ?? '')) {
        if (!write) return Index.#openCopy(dir);
        if (removeIfThere(at(dir, RESERVE))) return Index.open(dir, write);
      }
      throw Index.#openError(dir, error);
    }
  }

  /** Opens a private copy, for where the index cannot be opened in place. */
  static #openCopy(dir: string): Index {
    const scratch = makeScratch();
    try {
      const copy = join(scratch, DATABASE);
      const lock = StoreLock.acquireSync(dir, 'shared', INDEX_LOCK);
      try {
        copyIndex(dir, copy);
      } finally {
        lock.release();
      }
      const database = new Database(copy, { timeout: BUSY_TIMEOUT_MS });
      database.pragma('locking_mode = EXCLUSIVE'); // no -shm, so the files can go as soon as they are open
      database.pragma('journal_mode = MEMORY'); // folds the -wal in
      return Index.#prepare(dir, database, null, false);
    } catch (error) {
      const isOfScratch = (error as NodeJS.ErrnoException).path?.startsWith(scratch) || isFull(error);
      throw isOfScratch ? noScratch(error as Error) : Index.#openError(dir, error);
    } finally {
      rmSync(scratch, { recursive: true, force: true });
    }
  }

  static #openError(dir: string, error: unknown): unknown {
    const isEmptyHanded = sqliteCode(error) === 'SQLITE_NOTADB' && !existsSync(at(dir, PACKS));
    return isEmptyHanded ? notAStore(dir, error) : storeError(dir, error);
  }

  static #prepare(
    dir: string,
    database: BetterSqlite3.Database,
    lock: StoreLock | null,
    write: boolean,
  ): Index {
    try {
      // The file may come from anywhere: nothing in its schema is trusted, or run.
      database.pragma('trusted_schema = OFF');
      database.pragma('cell_size_check = ON');
      whenIndexIsFree(() => database.pragma('synchronous = FULL'));
      database.pragma('foreign_keys = ON');
      const index = new Index(dir, database, lock);
      index.#migrate(write);
      if (!write) database.pragma('query_only = ON');
      return index;
    } catch (error) {
      database.close();
      throw error;
    }
  }

  #migrate(write: boolean): void {
    const known = migrations().at(-1)!.version;
    const pragma = (name: string): number => this.database.pragma(name, { simple: true }) as number;
    // Read at one moment: another process may be making the store.
    const look = this.database.transaction(() => ({
      version: pragma('user_version'),
      isOurs: pragma('application_id') === APPLICATION_ID,
      schema: schemaOf(this.database),
    }));
    const { version, isOurs, schema } = whenIndexIsFree(() => look());
    // Of ours none is without a version, and none without tables: that comes about in one transaction.
    const isNew = !isOurs && version === 0 && schema === expectedSchema(0);
    if (isNew ? !write : !isOurs || version < 1) throw notAStore(this.dir);
    if (version > known)
      throw new LivesnapError(
        'NEWER_FORMAT',
        `the store ${this.dir} has index format ${version}; this livesnap knows formats up to ${known}`,
        { hint: 'Use the livesnap that wrote it, or a newer one.' },
      );
    this.#requireSchema(version, schema);
    if (version === known) return;
    // Reading changes nothing, and what reads knows the newest schema only.
    if (!write)
      throw new LivesnapError(
        'READ_ONLY',
        `the store ${this.dir} has index format ${version}, an older one`,
        {
          hint: 'Run livesnap gc once: it brings the index up to date.',
        },
      );
    this.#immediately(() => {
      const from = pragma('user_version');
      if (from === known) return; // another process was faster
      this.#requireSchema(from);
      for (const { version: to, sql } of migrations()) {
        if (to <= from) continue;
        this.database.exec(sql);
        this.database.pragma(`user_version = ${to}`);
      }
      this.database.pragma(`application_id = ${APPLICATION_ID}`);
      this.#requireSchema(known);
    });
  }

  /**
   * Before anything is run on it, and after a migration: a view, trigger or column that livesnap did not make would be
   * run by its statements. Errors: DAMAGED.
   */
  #requireSchema(version: number, schema = schemaOf(this.database)): void {
    if (schema !== expectedSchema(version))
      throw new LivesnapError(
        'DAMAGED',
        `the index of the store ${this.dir} has tables that livesnap did not make`,
        {
          hint: 'Run livesnap repair: it rebuilds the index from the files beside it.',
        },
      );
  }

  close(): void {
    this.database.close();
    this.lock?.release();
  }

  #statement(sql: string): BetterSqlite3.Statement<unknown[]> {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.database.prepare<unknown[]>(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #all<T>(sql: string, ...values: unknown[]): T[] {
    return this.#guarded(() => whenIndexIsFree(() => this.#statement(sql).all(...values) as T[]));
  }

  #get<T>(sql: string, ...values: unknown[]): T | undefined {
    return this.#guarded(() => whenIndexIsFree(() => this.#statement(sql).get(...values) as T | undefined));
  }

  /** Rows of a table, or some of their columns. Errors: DAMAGED. */
  #rows<T extends object>(table: Table, sql: string, values: unknown[] = [], onWrong = refuse): T[] {
    return this.#all<T>(sql, ...values).filter((row) => {
      const problem = wrongRow(table, row);
      if (problem) onWrong(problem);
      return !problem;
    });
  }

  /** Errors: DAMAGED. */
  #row<T extends object>(table: Table, sql: string, values: unknown[] = [], onWrong = refuse): T | undefined {
    return this.#rows<T>(table, sql, values, onWrong)[0];
  }

  #run(sql: string, ...values: unknown[]): number {
    return this.#statement(sql).run(...values).changes;
  }

  #guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw storeError(this.dir, error);
    }
  }

  /** The log's name is durable, so that what is committed to it is. */
  #logIsNamed = false;

  /** One immediate transaction; on a full disk once more without the reserve file. */
  #immediately<T>(work: () => T): T {
    const attempt = (): T => whenIndexIsFree(() => this.database.transaction(work).immediate());
    return this.#guarded(() => {
      // SQLite does this too, with the first commit to a new log, but does not look whether it failed.
      if (!this.#logIsNamed) fsyncDirectory(this.dir);
      this.#logIsNamed = true;
      try {
        return attempt();
      } catch (error) {
        const code = (error as { code?: string }).code ?? '';
        if (!/^SQLITE_(FULL|IOERR)/.test(code) || !this.#spendReserve) throw error;
        if (!removeIfThere(at(this.dir, RESERVE))) throw error;
        return attempt();
      }
    });
  }

  /** Whether the reserve file may be given up: to free space, never to use more. */
  #spendReserve = false;

  /** Runs work that frees space: its transactions may use the reserve. */
  freeingSpace<T>(work: () => T): T {
    this.#spendReserve = true;
    try {
      return work();
    } finally {
      this.#spendReserve = false;
    }
  }

  /** Every row that cannot be. */
  wrongRows(): DamageError[] {
    const found: DamageError[] = [];
    const note: OnWrongRow = (problem) => void found.push(problem);
    this.#rows('snapshots', 'SELECT * FROM snapshots', [], note);
    this.tags(note);
    this.packs(note);
    this.#rows('packs', 'SELECT number, readRun FROM packs', [], note);
    this.segments(note);
    this.nextNumber(note);
    return found;
  }

  /** For what must not do half its work before it comes to a row that cannot be. Errors: DAMAGED. */
  requireRightRows(): void {
    for (const problem of this.wrongRows()) throw problem;
  }

  // Snapshots and tags

  summaries(): SnapshotSummary[] {
    return this.#rows('snapshots', `${SUMMARY} ORDER BY createdAt, id`);
  }

  summary(id: string): SnapshotSummary | undefined {
    return this.#row('snapshots', `${SUMMARY} WHERE id = ?`, [id]);
  }

  has(id: string): boolean {
    return this.#get('SELECT 1 FROM snapshots WHERE id = ?', id) !== undefined;
  }

  ids(onWrong?: OnWrongRow): string[] {
    return this.#rows<{ id: string }>('snapshots', 'SELECT id FROM snapshots', [], onWrong).map(
      ({ id }) => id,
    );
  }

  row(id: string, onWrong?: OnWrongRow): SnapshotRow | undefined {
    return this.#row(
      'snapshots',
      `SELECT id, kind, vm, parent, createdAt, memoryBytes, diskBytes, storedBytes, logicalBytes, nonZeroPages
       FROM snapshots WHERE id = ?`,
      [id],
      onWrong,
    );
  }

  /** The snapshot that a label names. */
  taggedAs(label: string): string | undefined {
    return this.#row<{ snapshot: string }>('tags', `${TAG} WHERE label = ?`, [label])?.snapshot;
  }

  /** The label that names a snapshot. */
  #labelOf(id: string): string | undefined {
    return this.#row<{ label: string }>('tags', `${TAG} WHERE snapshot = ?`, [id])?.label;
  }

  /** At most three ids that begin with a prefix of hexadecimal digits. */
  idsBeginningWith(prefix: string): string[] {
    return this.#rows<{ id: string }>(
      'snapshots',
      'SELECT id FROM snapshots WHERE id >= ? AND id < ? ORDER BY id LIMIT 3',
      [prefix, `${prefix}g`],
    ).map(({ id }) => id);
  }

  tags(onWrong?: OnWrongRow): { label: string; snapshot: string; digest: string }[] {
    return this.#rows('tags', `${TAG} ORDER BY label`, [], onWrong);
  }

  /** Tags whose row may be, and is not what was written. */
  damagedTags(): { label: string; snapshot: string }[] {
    return this.tags(() => {}).filter(({ label, snapshot, digest }) => digest !== tagDigest(label, snapshot));
  }

  setTag(id: string, label: string): TagMove {
    return this.#immediately(() => this.#moveTag(id, label));
  }

  #moveTag(id: string, label: string): TagMove {
    const before = this.#labelOf(id);
    // A row that cannot be is no snapshot that loses its tag.
    const holder = this.#row<{ snapshot: string }>(
      'tags',
      `${TAG} WHERE label = ?`,
      [label],
      () => {},
    )?.snapshot;
    this.#run('DELETE FROM tags WHERE label = ? OR snapshot = ?', label, id);
    this.#run('INSERT INTO tags (label, snapshot, digest) VALUES (?, ?, ?)', label, id, tagDigest(label, id));
    return {
      replacedTag: before === undefined || before === label ? null : before,
      movedFrom: holder === undefined || holder === id ? null : holder,
    };
  }

  /** Returns the labels that went with them. */
  removeSnapshots(ids: readonly string[]): string[] {
    return this.freeingSpace(() =>
      this.#immediately(() => {
        const labels: string[] = [];
        for (const id of ids) {
          const label = this.#labelOf(id);
          if (label !== undefined) labels.push(label);
          this.#run('DELETE FROM snapshots WHERE id = ?', id);
        }
        return labels;
      }),
    );
  }

  totals(): { snapshots: number; logicalBytes: number; nonZeroPages: number } {
    return this.#get(
      'SELECT count(*) AS snapshots, total(logicalBytes) AS logicalBytes, total(nonZeroPages) AS nonZeroPages FROM snapshots',
    )!;
  }

  // Saves

  /**
   * Commits something of its own, in the place of any commit in the log that nobody sees: one whose process was killed
   * after it had synced the log and before it had told the others. Errors: NO_SPACE.
   */
  supersedeUnseen(): void {
    // A page must have been changed, if only there and back, or nothing is written.
    const set = "UPDATE counters SET value = ? WHERE name = 'nextNumber'";
    this.freeingSpace(() =>
      this.#immediately(() => {
        const next = this.nextNumber();
        this.#run(set, next - 1);
        this.#run(set, next);
      }),
    );
  }

  /** Numbers that no pack and no segment has had. */
  reserveNumbers(count: number): number[] {
    const first = this.#immediately(() => {
      const next = this.nextNumber();
      this.#run("UPDATE counters SET value = ? WHERE name = 'nextNumber'", next + count);
      return next;
    });
    return Array.from({ length: count }, (_, i) => first + i);
  }

  /**
   * The one commit point of a save. `held` are the packs of others that it may refer to: a gc that was cut short between
   * its commit and its unlink has left their files, but not their rows, or those of a later generation, which has less. A
   * row of an earlier generation than the held one stays: another save has put it there, and it has all that this has.
   * Returns what the tag did; null when the snapshot has none.
   */
  commitSave(
    snapshot: SnapshotRow,
    tag: { label: string; onlyIfFree: boolean } | null,
    packs: readonly PackRow[],
    held: readonly PackRow[],
    segment: SegmentRow | null,
  ): TagMove | null {
    return this.#immediately(() => {
      for (const pack of held) {
        const listed = this.generationOf(pack.number);
        if (listed !== undefined && listed <= pack.generation) continue;
        this.#run('DELETE FROM packs WHERE number = ?', pack.number);
        this.#insertPack(pack);
      }
      for (const pack of packs) this.#insertPack(pack);
      if (segment) this.#insertSegment(segment);
      this.#insertSnapshot(snapshot);
      if (tag === null || (tag.onlyIfFree && this.taggedAs(tag.label) !== undefined)) return null;
      return this.#moveTag(snapshot.id, tag.label);
    });
  }

  /** Packs of a copy under way: what has arrived can be found when it goes on, and is gc's when it does not. */
  commitPacks(packs: readonly PackRow[], segment: SegmentRow | null): void {
    this.#immediately(() => {
      for (const pack of packs) this.#insertPack(pack);
      if (segment) this.#insertSegment(segment);
    });
  }

  #insertPack(pack: PackRow): void {
    this.#run(
      'INSERT INTO packs (number, generation, chunks, sizeBytes) VALUES (?, ?, ?, ?)',
      pack.number,
      pack.generation,
      pack.chunks,
      pack.sizeBytes,
    );
  }

  #insertSegment({ number, entries }: SegmentRow): void {
    this.#run('INSERT INTO segments (number, entries) VALUES (?, ?)', number, entries);
  }

  #insertSnapshot(row: SnapshotRow): void {
    this.#run(
      `INSERT INTO snapshots
         (id, kind, vm, parent, createdAt, memoryBytes, diskBytes, storedBytes, logicalBytes, nonZeroPages)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      row.id,
      row.kind,
      row.vm,
      row.parent,
      row.createdAt,
      row.memoryBytes,
      row.diskBytes,
      row.storedBytes,
      row.logicalBytes,
      row.nonZeroPages,
    );
  }

  // Packs and segments

  packs(onWrong?: OnWrongRow): PackRow[] {
    return this.#rows(
      'packs',
      'SELECT number, generation, chunks, sizeBytes FROM packs ORDER BY number',
      [],
      onWrong,
    );
  }

  /** The next number of a pack or segment; 0 when `onWrong` was told. */
  nextNumber(onWrong: OnWrongRow = refuse): number {
    const sql = "SELECT value FROM counters WHERE name = 'nextNumber'";
    if (!this.#get(sql)) onWrong(damaged('counters', 'there is no next number'));
    return this.#row<{ value: number }>('counters', sql, [], onWrong)?.value ?? 0;
  }

  /** Packs in the order in which they are to be read by check: those that were not read for longest first. */
  packsToRead(onWrong?: OnWrongRow): PackRow[] {
    return this.#rows(
      'packs',
      'SELECT number, generation, chunks, sizeBytes FROM packs ORDER BY readRun, number',
      [],
      onWrong,
    );
  }

  /** Notes that a run of check has read these packs. */
  noteRead(packs: readonly PackRow[]): void {
    this.#immediately(() => {
      const { last } = this.#get<{ last: number }>('SELECT coalesce(max(readRun), 0) AS last FROM packs')!;
      const run = last < MAX_NUMBER ? last + 1 : 1;
      if (run === 1) this.#run('UPDATE packs SET readRun = 0');
      for (const { number, generation } of packs)
        this.#run(
          'UPDATE packs SET readRun = ? WHERE number = ? AND generation = ?',
          run,
          number,
          generation,
        );
    });
  }

  /** Undefined: there is no such pack. */
  generationOf(pack: number): number | undefined {
    return this.#row<{ generation: number }>('packs', 'SELECT generation FROM packs WHERE number = ?', [pack])
      ?.generation;
  }

  /** Oldest first. */
  segments(onWrong?: OnWrongRow): SegmentRow[] {
    return this.#rows('segments', 'SELECT number, entries FROM segments ORDER BY number', [], onWrong);
  }

  /** How many entries the segments have, and how many chunks the packs. */
  coverage(): { listed: number; chunks: number } {
    return this.#get<{ listed: number; chunks: number }>(
      'SELECT (SELECT total(entries) FROM segments) AS listed, (SELECT total(chunks) FROM packs) AS chunks',
    )!;
  }

  hasSegment(number: number): boolean {
    return this.#get('SELECT 1 FROM segments WHERE number = ?', number) !== undefined;
  }

  /** Replaces segments by others with the same entries; false when another process was faster. */
  replaceSegments(numbers: readonly number[], merged: readonly SegmentRow[]): boolean {
    return this.#immediately(() => {
      if (!numbers.every((number) => this.hasSegment(number))) return false;
      for (const number of numbers) this.#run('DELETE FROM segments WHERE number = ?', number);
      for (const segment of merged) this.#insertSegment(segment);
      return true;
    });
  }

  /** Removes packs that are still listed in this generation; returns those. */
  removePacks<P extends Pick<PackRow, 'number' | 'generation'>>(packs: readonly P[]): P[] {
    if (packs.length === 0) return [];
    return this.freeingSpace(() =>
      this.#immediately(() => packs.filter((pack) => this.#removePack(pack.number, pack.generation))),
    );
  }

  /** Makes a rewritten generation the one that counts; false when `from` no longer is. */
  replacePack(pack: PackRow, from: number): boolean {
    return this.freeingSpace(() =>
      this.#immediately(() => {
        const isListed = this.#removePack(pack.number, from);
        if (isListed) this.#insertPack(pack);
        return isListed;
      }),
    );
  }

  #removePack(number: number, generation: number): boolean {
    return this.#run('DELETE FROM packs WHERE number = ? AND generation = ?', number, generation) > 0;
  }

  /** Fills an empty index (repair). */
  rebuild(content: {
    snapshots: readonly SnapshotRow[];
    tags: readonly { label: string; snapshot: string }[];
    packs: readonly PackRow[];
    nextNumber: number;
  }): void {
    this.#immediately(() => {
      this.#run("UPDATE counters SET value = ? WHERE name = 'nextNumber'", content.nextNumber);
      for (const pack of content.packs) this.#insertPack(pack);
      for (const snapshot of content.snapshots) this.#insertSnapshot(snapshot);
      for (const { label, snapshot } of content.tags) this.#moveTag(snapshot, label);
    });
  }

  /** Moves the log into the database and empties it, if nobody is in the way. */
  checkpoint(): void {
    this.#guarded(() => {
      try {
        this.database.pragma('wal_checkpoint(TRUNCATE)');
      } catch {
        // A reader or a full disk: the log stays, and is as good.
      }
    });
  }

  /** Gives free pages back to the file system, when a tenth or more are free. */
  vacuum(): void {
    const pragma = (name: string): number => this.database.pragma(name, { simple: true }) as number;
    this.#guarded(() => {
      whenIndexIsFree(() => {
        if (pragma('freelist_count') * 10 >= pragma('page_count')) this.database.exec('VACUUM');
      });
    });
  }

  /** What SQLite finds wrong with the file. */
  integrityProblems(): string[] {
    try {
      const rows = whenIndexIsFree(() => this.database.pragma('integrity_check(20)')) as {
        integrity_check: string;
      }[];
      return rows.map((row) => row.integrity_check).filter((text) => text !== 'ok');
    } catch (error) {
      return [(error as Error).message];
    }
  }
}

const tagDigest = (label: string, snapshot: string): string =>
  hash('sha256', `${label} ${snapshot}`).slice(0, 16);

const TAG = `
  SELECT label, snapshot, digest, EXISTS (SELECT 1 FROM snapshots WHERE id = snapshot) AS isThere FROM tags`;

const SUMMARY = `
  SELECT id, label AS tag, kind, vm, parent, createdAt, memoryBytes, diskBytes, storedBytes
  FROM snapshots LEFT JOIN tags ON tags.snapshot = snapshots.id`;

export const notAStore = (dir: string, cause?: unknown): LivesnapError =>
  new LivesnapError('NOT_A_STORE', `${dir} is not a livesnap store`, {
    hint: existsSync(at(dir, PACKS))
      ? 'Its index is missing: run livesnap repair to rebuild it.'
      : 'Name the directory of a store with --store.',
    cause,
  });
