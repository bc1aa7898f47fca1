// Builds what is not TypeScript: the C++ addon (node-gyp) and the bundled probe guest (make).
// Run by `npm install`; quiet unless something fails. Node's headers are taken from beside the running
// Node when they are there (as in Node's own tarballs and most packages), so that nothing is downloaded.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

function findNodeGyp() {
  const fromNpm = process.env.npm_config_node_gyp;
  if (fromNpm && existsSync(fromNpm)) return fromNpm;
  const prefix = dirname(dirname(process.execPath));
  const bundled = join(prefix, 'lib/node_modules/npm/node_modules/node-gyp/bin/node-gyp.js');
  if (existsSync(bundled)) return bundled;
  return createRequire(import.meta.url).resolve('node-gyp/bin/node-gyp.js');
}

function run(what, command, args) {
  const done = spawnSync(command, args, { cwd: root, encoding: 'utf8' });
  if (done.status === 0) return;
  process.stderr.write(`${done.stdout ?? ''}${done.stderr ?? ''}`);
  const why = done.error ? done.error.message : `exit status ${done.status ?? done.signal}`;
  process.stderr.write(`livesnap: building ${what} failed (${why}); gcc, g++, make and python3 are needed\n`);
  process.exit(1);
}

const headers = resolve(dirname(process.execPath), '..');
const nodedir = existsSync(join(headers, 'include/node/node_api.h')) ? [`--nodedir=${headers}`] : [];
const verb =
  process.argv.includes('--clean') || !existsSync(join(root, 'addon/build/config.gypi'))
    ? ['rebuild']
    : ['configure', 'build'];
for (const step of verb)
  run('the addon', process.execPath, [findNodeGyp(), step, '-C', 'addon', '-j', 'max', ...nodedir]);
run('the probe guest', 'make', ['-s', '-C', 'guest']);
