/**
 * One connection to the index: how statements and transactions run.
 *
 * Invariants:
 * - Every write is one immediate transaction.
 * - SQLite does not wait for other connections. whenIndexIsFree does.
 * - No row is returned before its values were checked (index-rows.ts).
 * - The reserve file is given up only for work that frees space.
 */
import type BetterSqlite3 from 'better-sqlite3';
import type { DamageError } from '../disk/damage.js';
import { at, fsyncDirectory, RESERVE, removeIfThere, storeError } from '../disk/layout.js';
import type { StoreLock } from '../disk/store-lock.js';
import { whenIndexIsFree } from '../disk/waits.js';
import { invalidRow, type Table } from './index-rows.js';

/** Called with each invalid row, which is then left out. */
export type OnInvalidRow = (problem: DamageError) => void;

export const throwProblem: OnInvalidRow = (problem) => {
  throw problem;
};

export class Connection {
  readonly #statements = new Map<string, BetterSqlite3.Statement<unknown[]>>();

  constructor(
    readonly dir: string,
    readonly database: BetterSqlite3.Database,
    /** `index.lock`, shared while store.db is open; null for a private copy. */
    readonly lock: StoreLock | null,
  ) {}

  close(): void {
    this.database.close();
    this.lock?.release();
  }

  /** The number of the last migration of this index. Another process may migrate it at any time. */
  get schemaVersion(): number {
    return this.#guarded(() => whenIndexIsFree(() => this.#pragma('user_version')));
  }

  #statement(sql: string): BetterSqlite3.Statement<unknown[]> {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.database.prepare<unknown[]>(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  /** One row of any query, unchecked: for counts and sums. */
  get<T>(sql: string, ...values: unknown[]): T | undefined {
    return this.#guarded(() => whenIndexIsFree(() => this.#statement(sql).get(...values) as T | undefined));
  }

  /** Rows of a table, or some of their columns. Errors: DAMAGED. */
  rows<T extends object>(table: Table, sql: string, values: unknown[] = [], onInvalid = throwProblem): T[] {
    const rows = this.#guarded(() => whenIndexIsFree(() => this.#statement(sql).all(...values) as T[]));
    return rows.filter((row) => {
      const problem = invalidRow(table, row);
      if (problem) onInvalid(problem);
      return !problem;
    });
  }

  /** Errors: DAMAGED. */
  row<T extends object>(
    table: Table,
    sql: string,
    values: unknown[] = [],
    onInvalid = throwProblem,
  ): T | undefined {
    return this.rows<T>(table, sql, values, onInvalid)[0];
  }

  /** Runs a statement inside a transaction. Returns how many rows it changed. */
  run(sql: string, ...values: unknown[]): number {
    return this.#statement(sql).run(...values).changes;
  }

  #guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw storeError(this.dir, error);
    }
  }

  /** Whether the directory entry of the log was synced. Without that, a power cut can lose the log with its commits. */
  #isLogNamed = false;

  /** Runs one immediate transaction. On a full disk {@link freeingSpace} tries it again without the reserve file. */
  transaction<T>(work: () => T): T {
    const attempt = (): T => whenIndexIsFree(() => this.database.transaction(work).immediate());
    return this.#guarded(() => {
      // SQLite does this with the first commit to a new log as well, but ignores a failure.
      if (!this.#isLogNamed) fsyncDirectory(this.dir);
      this.#isLogNamed = true;
      try {
        return attempt();
      } catch (error) {
        const code = (error as { code?: string }).code ?? '';
        if (!/^SQLITE_(FULL|IOERR)/.test(code) || !this.#maySpendReserve) throw error;
        if (!removeIfThere(at(this.dir, RESERVE))) throw error;
        return attempt();
      }
    });
  }

  #maySpendReserve = false;

  /** Runs work that frees space. Its transactions may delete the reserve file to find room. */
  freeingSpace<T>(work: () => T): T {
    this.#maySpendReserve = true;
    try {
      return work();
    } finally {
      this.#maySpendReserve = false;
    }
  }

  #pragma(name: string): number {
    return this.database.pragma(name, { simple: true }) as number;
  }

  /** Moves the log into the database and empties it, unless another connection prevents that. */
  checkpoint(): void {
    this.#guarded(() => {
      try {
        this.database.pragma('wal_checkpoint(TRUNCATE)');
      } catch {
        // A reader or a full disk: the log stays, and holds the same data.
      }
    });
  }

  /** Returns free pages to the file system if they are a tenth of the file or more. */
  vacuum(): void {
    this.#guarded(() => {
      whenIndexIsFree(() => {
        if (this.#pragma('freelist_count') * 10 >= this.#pragma('page_count')) this.database.exec('VACUUM');
      });
    });
  }

  /** The problems that SQLite finds in the file. */
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
