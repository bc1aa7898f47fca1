/**
 * Loads modules that have compiled parts: packages and the addon. For a module that cannot be loaded (built for another
 * Node or C library, missing, truncated) the error names the module and the command that repairs it.
 */
import { createRequire } from 'node:module';
import type Database from 'better-sqlite3';
import type { XXHashAPI } from 'xxhash-wasm';
import { LivesnapError } from '../errors.js';
import { projectRoot } from './project-root.js';

const require = createRequire(import.meta.url);

/** Opens a database once, because better-sqlite3 loads its compiled part only then. Errors: SYSTEM. */
export const loadSqlite = (): typeof Database =>
  load('better-sqlite3', () => {
    const Sqlite = require('better-sqlite3') as typeof Database;
    new Sqlite(':memory:').close();
    return Sqlite;
  });

/** Errors: SYSTEM. */
export const loadLz4 = (): typeof import('lz4-napi') => load('lz4-napi', () => require('lz4-napi'));

/** Errors: SYSTEM. */
export const loadXxhash = (): (() => Promise<XXHashAPI>) => load('xxhash-wasm', () => require('xxhash-wasm'));

/** Errors: SYSTEM. */
export const loadAddon = (file: string): Record<string, unknown> =>
  load('the C++ addon', () => require(file), 'npm run build:native');

function load<T>(name: string, work: () => T, remedy?: string): T {
  try {
    return work();
  } catch (error) {
    throw loadError(name, error, remedy);
  }
}

/** An error and its causes. lz4-napi tries several files and chains all failures. */
function* chain(error: unknown): Generator<NodeJS.ErrnoException> {
  for (let each = error; each instanceof Error; each = each.cause) yield each;
}

/** The error for a module that raised `error` when it was loaded. `remedy` is the command that builds the module. */
export function loadError(name: string, error: unknown, remedy = 'npm rebuild'): LivesnapError {
  const failures = [...chain(error)];
  const found = <T>(look: (failure: NodeJS.ErrnoException) => T | null): T | null =>
    failures.map(look).find((result) => result !== null) ?? null;
  const fail = (message: string, command: string): LivesnapError =>
    new LivesnapError('SYSTEM', message, { hint: `Run ${command} in ${projectRoot}.`, cause: error });

  const builtFor = found(({ message }) => /NODE_MODULE_VERSION (\d+)/.exec(message)?.[1] ?? null);
  if (builtFor !== null) {
    const { node, modules } = process.versions;
    return fail(
      `${name} was built for another version of Node: it has NODE_MODULE_VERSION ${builtFor}, Node ${node} needs ${modules}`,
      remedy,
    );
  }
  const library = found(({ message }) => /version [`'"]([^'"]+)' not found/.exec(message)?.[1] ?? null);
  if (library !== null) return fail(`${name} was built for another system: it needs ${library}`, remedy);
  const broken = found(({ code, message }) => (code === 'ERR_DLOPEN_FAILED' ? message : null));
  if (broken !== null) return fail(`${name} cannot be loaded: ${firstLine(broken)}`, remedy);
  const missing = found(({ code, message }) =>
    code === 'MODULE_NOT_FOUND' || code === 'ERR_MODULE_NOT_FOUND' || message.startsWith('Could not locate')
      ? message
      : null,
  );
  if (missing !== null)
    return fail(`${name} is not installed, or a part of it is missing: ${firstLine(missing)}`, 'npm ci');
  return fail(`${name} cannot be loaded: ${firstLine(failures[0]?.message ?? String(error))}`, 'npm ci');
}

const firstLine = (text: string): string => text.split('\n')[0]!;
