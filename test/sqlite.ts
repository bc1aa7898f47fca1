/** better-sqlite3 as livesnap loads it. A test must not import the package: Node 20 crashes when it is loaded. */
import type BetterSqlite3 from 'better-sqlite3';
import { loadSqlite } from '../src/native/modules.js';

export const Database: typeof BetterSqlite3 = loadSqlite();
