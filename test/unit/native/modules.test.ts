import assert from 'node:assert/strict';
import { loadError, loadSqlite } from '../../../src/native/modules.js';
import { projectRoot } from '../../../src/native/project-root.js';

const failure = (code: string | undefined, message: string, cause?: Error): Error =>
  Object.assign(new Error(message, { cause }), code === undefined ? {} : { code });

describe('the error for a module', () => {
  const { node, modules } = process.versions;
  const cases: Record<string, [Error, RegExp]> = {
    'built for another Node': [
      failure(
        'ERR_DLOPEN_FAILED',
        "The module '/x/m.node'\nwas compiled against a different Node.js version using\nNODE_MODULE_VERSION 108. This version of Node.js requires\nNODE_MODULE_VERSION 115. Please try re-compiling or re-installing\nthe module (for instance, using `npm rebuild` or `npm install`).",
      ),
      new RegExp(
        `^m was built for another version of Node: it has NODE_MODULE_VERSION 108, Node ${node} needs ${modules}$`,
      ),
    ],
    'built for a newer C library': [
      failure(
        'ERR_DLOPEN_FAILED',
        "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /x/m.node)",
      ),
      /^m was built for another system: it needs GLIBC_2\.38$/,
    ],
    'with a symbol that is not there': [
      failure('ERR_DLOPEN_FAILED', '/x/m.node: undefined symbol: napi_of_tomorrow'),
      /^m cannot be loaded: \/x\/m\.node: undefined symbol: napi_of_tomorrow$/,
    ],
    'not installed': [
      failure('MODULE_NOT_FOUND', "Cannot find module 'm'\nRequire stack:\n- /x.js"),
      /^m is not installed, or a part of it is missing: Cannot find module 'm'$/,
    ],
    'without its compiled part': [
      failure(undefined, 'Could not locate the bindings file. Tried:\n → /x/build/m.node'),
      /^m is not installed, or a part of it is missing: Could not locate/,
    ],
    'that tried several files': [
      failure(
        undefined,
        'Cannot find native binding. npm has a bug related to optional dependencies.',
        failure(
          'ERR_DLOPEN_FAILED',
          "libc.so.6: version `GLIBC_2.99' not found (required by m.node)",
          failure('MODULE_NOT_FOUND', "Cannot find module './m.node'"),
        ),
      ),
      /needs GLIBC_2\.99$/,
    ],
    'that is missing for this platform': [
      failure(
        undefined,
        'Cannot find native binding. npm has a bug related to optional dependencies.',
        failure('MODULE_NOT_FOUND', "Cannot find module '@m/linux-x64'"),
      ),
      /^m is not installed, or a part of it is missing: Cannot find module '@m\/linux-x64'$/,
    ],
    'for another reason': [failure(undefined, 'it has moods\nat noon'), /^m cannot be loaded: it has moods$/],
  };
  for (const [what, [error, message]] of Object.entries(cases)) {
    it(`${what} names it`, () => {
      const mapped = loadError('m', error);
      assert.equal(mapped.code, 'SYSTEM');
      assert.match(mapped.message, message);
      assert.doesNotMatch(mapped.message, /\n/);
      assert.equal(mapped.hint, `Run npm ci in ${projectRoot}.`);
      assert.equal(mapped.cause, error);
    });
  }

  it('says how to build one that is built here', () => {
    assert.equal(
      loadError('m', failure('ERR_DLOPEN_FAILED', '/x/m.node: file too short'), 'Build it.').hint,
      'Build it.',
    );
  });
});

describe('better-sqlite3', () => {
  it('opens databases with options, and has its own class of errors', () => {
    const Database = loadSqlite();
    const database = new Database(':memory:', { timeout: 7 });
    assert(database instanceof Database);
    assert.throws(() => database.exec('no statement'), Database.SqliteError);
    assert.deepEqual(database.prepare('SELECT 1 AS one').get(), { one: 1 });
    database.close();
    assert.throws(
      () => new Database('/nowhere/store.db', { fileMustExist: true }),
      /directory does not exist/,
    );
  });
});
