// Builds the parts that are not TypeScript: the C++ addon (node-gyp), the bundled probe guest (make), and in Node 20 its
// better-sqlite3. Prints nothing unless something fails.
//
// `npm ci` in a checkout runs this with --optional: on a platform that the addon is not for, or without the tools to
// build it, it then prints a warning and succeeds, because verbs that only read work without the addon. A build that
// fails always fails the installation.
//
// Node's headers are taken from beside the running Node where they are (as in Node's own tarballs and most packages),
// so that nothing is downloaded.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** NODE_MODULE_VERSION of Node 20, for which better-sqlite3 has no binary: src/native/modules.ts. */
const NODE_20 = '115';
const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { CXX, PYTHON, npm_config_python } = process.env;
/** node-gyp lets the environment name a C++ compiler and a Python. */
const TOOLS = ['gcc', 'make', ...(CXX ? [] : ['g++']), ...(PYTHON || npm_config_python ? [] : ['python3'])];

function fail(sentence, isOptional = false) {
  process.stderr.write(`livesnap: ${isOptional ? 'warning: ' : ''}${sentence}\n`);
  process.exit(isOptional ? 0 : 1);
}

function isInPath(tool) {
  return (process.env.PATH ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, tool), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Why the addon cannot be built here; null: it can. */
function obstacle() {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return `it needs Linux on x86-64, this is ${process.platform} on ${process.arch}`;
  const missing = TOOLS.filter((tool) => !isInPath(tool));
  return missing.length === 0 ? null : `${missing.join(', ')} not found`;
}

function findNodeGyp() {
  const fromNpm = process.env.npm_config_node_gyp;
  if (fromNpm && existsSync(fromNpm)) return fromNpm;
  const prefix = dirname(dirname(process.execPath));
  const bundled = join(prefix, 'lib/node_modules/npm/node_modules/node-gyp/bin/node-gyp.js');
  if (existsSync(bundled)) return bundled;
  return createRequire(import.meta.url).resolve('node-gyp/bin/node-gyp.js');
}

function run(part, command, args) {
  const done = spawnSync(command, args, { cwd: root, encoding: 'utf8' });
  if (done.status === 0) return;
  process.stderr.write(`${done.stdout ?? ''}${done.stderr ?? ''}`);
  const reason = done.error ? done.error.message : `exit status ${done.status ?? done.signal}`;
  fail(`building ${part} failed: ${reason}`);
}

const headers = resolve(dirname(process.execPath), '..');
const nodedir = existsSync(join(headers, 'include/node/node_api.h')) ? [`--nodedir=${headers}`] : [];

/** Builds `directory`, which has a binding.gyp. */
function gyp(part, directory, steps) {
  for (const step of steps)
    run(part, process.execPath, [findNodeGyp(), step, '-C', directory, '-j', 'max', ...nodedir]);
}

const isLoadable = (file) =>
  spawnSync(process.execPath, ['-e', 'require(process.argv[1])', file]).status === 0;

const isNode20 = process.versions.modules === NODE_20;
const why = obstacle();
if (why !== null)
  fail(
    `the C++ addon cannot be built: ${why}. Without it only ls, show, stats, get, check and export work` +
      `${isNode20 ? ', with Node 22.14 or newer' : ''}.`,
    process.argv.includes('--optional'),
  );
const isClean = process.argv.includes('--clean');
gyp(
  'the addon',
  'addon',
  isClean || !existsSync(join(root, 'addon/build/config.gypi')) ? ['rebuild'] : ['configure', 'build'],
);
// The npm package has neither the sources of the guest nor those of this better-sqlite3, but what is built of them.
if (existsSync(join(root, 'guest/Makefile'))) run('the probe guest', 'make', ['-s', '-C', 'guest']);
const sqlite = 'node_modules/better-sqlite3-node20';
if (
  isNode20 &&
  existsSync(join(root, sqlite, 'binding.gyp')) &&
  (isClean || !isLoadable(join(root, sqlite, 'build/Release/better_sqlite3.node')))
)
  gyp('better-sqlite3', sqlite, ['rebuild']);
