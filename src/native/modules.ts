/**
 * Loads modules that have compiled parts, packages and the addon, and other bundles. For a module that cannot be loaded (built for another
 * Node or C library, missing, truncated) the error names the module and the command that repairs it.
 */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type Database from 'better-sqlite3';
import type { XXHashAPI } from 'xxhash-wasm';
import { LivesnapError } from '../errors.js';
import { findBinary, isLinuxX64 } from './prebuilds.js';
import { isCheckout, projectRoot, REINSTALL } from './project-root.js';

const require = createRequire(import.meta.url);
const BUILD = `Run npm run build:native in ${projectRoot}.`;

/** The Node-API version of better-sqlite3. Node 20 has an older one, and crashes when it loads such a module. */
const SQLITE_NODE_API = 10;
/** NODE_MODULE_VERSION of Node 20. */
const NODE_20 = '115';
const NEWER_NODE = 'Install Node 22.14 or newer.';

/** Loads an entry of scripts/bundle.mjs into this process. There is no other way: a bundle has no `import()`. */
export const loadBundle = <T>(entry: URL): T => require(fileURLToPath(entry)) as T;

/** Opens a database once, because better-sqlite3 loads its compiled part only then. Errors: SYSTEM. */
export function loadSqlite(): typeof Database {
  const isCurrent = Number(process.versions.napi) >= SQLITE_NODE_API;
  return load(
    'better-sqlite3',
    () => {
      const Sqlite = isCurrent ? (require('better-sqlite3') as typeof Database) : sqliteForNode20();
      new Sqlite(':memory:').close();
      return Sqlite;
    },
    !isCurrent && isCheckout ? BUILD : REINSTALL,
  );
}

/** The last better-sqlite3 that works in Node 20: built in a checkout, or carried by the npm package. */
function sqliteForNode20(): typeof Database {
  const { node, modules } = process.versions;
  if (modules !== NODE_20)
    throw new LivesnapError('SYSTEM', `better-sqlite3 does not work in Node ${node}`, { hint: NEWER_NODE });
  const nativeBinding = findBinary(
    'node_modules/better-sqlite3-node20/build/Release/better_sqlite3.node',
    'better-sqlite3-node20/build/Release/better_sqlite3.node',
  );
  if (nativeBinding === null)
    throw new LivesnapError('SYSTEM', 'better-sqlite3 is not built for Node 20', {
      hint: isCheckout && isLinuxX64 ? REINSTALL : NEWER_NODE,
    });
  const options = { nativeBinding };
  const Sqlite = require(join(dirname(nativeBinding), '../..')) as typeof Database;
  return class extends Sqlite {
    constructor(file?: string | Buffer, given?: Database.Options) {
      super(file, { ...given, ...options });
    }
  } as unknown as typeof Database;
}

/** Errors: SYSTEM. */
export const loadLz4 = (): typeof import('lz4-napi') => load('lz4-napi', () => require('lz4-napi'));

/** Errors: SYSTEM. */
export const loadXxhash = (): (() => Promise<XXHashAPI>) => load('xxhash-wasm', () => require('xxhash-wasm'));

/** Errors: SYSTEM. */
export const loadBlake3 = (): ((bytes: Uint8Array) => Uint8Array) =>
  load(
    '@noble/hashes',
    () => (require('@noble/hashes/blake3') as typeof import('@noble/hashes/blake3')).blake3,
  );

/** Errors: SYSTEM. */
export const loadAddon = (file: string): Record<string, unknown> =>
  load('the C++ addon', () => require(file), BUILD);

function load<T>(name: string, work: () => T, remedy?: string): T {
  try {
    return work();
  } catch (error) {
    throw error instanceof LivesnapError ? error : loadError(name, error, remedy);
  }
}

/** An error and its causes. lz4-napi tries several files and chains all failures. */
function* chain(error: unknown): Generator<NodeJS.ErrnoException> {
  for (let each = error; each instanceof Error; each = each.cause) yield each;
}

/** The error for a module that raised `error` when it was loaded. `remedy` is the sentence that says how to build it. */
export function loadError(name: string, error: unknown, remedy = REINSTALL): LivesnapError {
  const failures = [...chain(error)];
  const found = <T>(look: (failure: NodeJS.ErrnoException) => T | null): T | null =>
    failures.map(look).find((result) => result !== null) ?? null;
  const fail = (message: string, hint: string): LivesnapError =>
    new LivesnapError('SYSTEM', message, { hint, cause: error });

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
    return fail(`${name} is not installed, or a part of it is missing: ${firstLine(missing)}`, REINSTALL);
  return fail(`${name} cannot be loaded: ${firstLine(failures[0]?.message ?? String(error))}`, REINSTALL);
}

const firstLine = (text: string): string => text.split('\n')[0]!;
