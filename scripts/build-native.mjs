// Builds the parts that are not TypeScript: the C++ addon (node-gyp) and the bundled probe guest (make). Prints
// nothing unless something fails.
//
// `npm install` runs this with --optional: on a platform that the addon is not for, or without the tools to build it,
// it then prints a warning and succeeds, because verbs that only read work without the addon. A build that fails
// always fails the installation.
//
// Node's headers are taken from beside the running Node where they are (as in Node's own tarballs and most packages),
// so that nothing is downloaded.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

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

const why = obstacle();
if (why !== null)
  fail(
    `the C++ addon cannot be built: ${why}. Without it only ls, show, stats, get, check and export work.`,
    process.argv.includes('--optional'),
  );
const headers = resolve(dirname(process.execPath), '..');
const nodedir = existsSync(join(headers, 'include/node/node_api.h')) ? [`--nodedir=${headers}`] : [];
const isClean = process.argv.includes('--clean') || !existsSync(join(root, 'addon/build/config.gypi'));
for (const step of isClean ? ['rebuild'] : ['configure', 'build'])
  run('the addon', process.execPath, [findNodeGyp(), step, '-C', 'addon', '-j', 'max', ...nodedir]);
run('the probe guest', 'make', ['-s', '-C', 'guest']);
