// Runs the tests that depend most on Node with each supported version: npm run test:node [-- MAJOR...]. Other versions
// than the running one are downloaded once (scripts/node-versions.mjs). What is built is the same for all of them.
// Prints one line for each version, and the failures. The whole output is in a file.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  createWriteStream,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CACHE, MAJORS, nodeOf } from './node-versions.mjs';

const E2E = ['package', 'usage', 'save-restore', 'console-use', 'process-failure'];
const SPECS = [
  'dist/test/unit/**/*.test.js',
  'dist/test/store/**/*.test.js',
  ...E2E.map((name) => `dist/test/e2e/${name}.test.js`),
];
const root = fileURLToPath(new URL('..', import.meta.url));

/** A copy of this Node in `dir` that every user can run: tests become other users. */
function copyForAll(node, dir) {
  const copy = join(dir, 'bin/node');
  mkdirSync(dirname(copy));
  copyFileSync(node, copy);
  for (const path of [dir, dirname(copy), copy]) chmodSync(path, 0o755);
  return copy;
}

/** Runs mocha with this Node, which the processes of the tests then find in PATH too. Returns its exit status. */
async function test(node, log) {
  const options = ['--no-config', '-t', '120000', '--enable-source-maps', '--exit'];
  const child = spawn(node, ['node_modules/mocha/bin/mocha.js', ...options, ...SPECS], {
    cwd: root,
    env: { ...process.env, PATH: `${dirname(node)}:${process.env.PATH}` },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = createWriteStream(log);
  for (const stream of [child.stdout, child.stderr]) stream.pipe(output, { end: false });
  const [status] = await once(child, 'close');
  output.end();
  await once(output, 'close');
  return status;
}

mkdirSync(CACHE, { recursive: true });
for (const major of process.argv.length > 2 ? process.argv.slice(2) : MAJORS) {
  const node = nodeOf(major);
  const version = spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.trim();
  const log = join(CACHE, `test-${major}.log`);
  const begun = Date.now();
  const dir = mkdtempSync(join(tmpdir(), 'livesnap-node-'));
  const status = await test(copyForAll(node, dir), log);
  rmSync(dir, { recursive: true });
  const text = readFileSync(log, 'utf8');
  const count = (what) => Number(new RegExp(`^ {2}(\\d+) ${what}`, 'm').exec(text)?.[1] ?? 0);
  const minutes = ((Date.now() - begun) / 60_000).toFixed(1);
  process.stdout.write(
    `Node ${version}: ${count('passing')} passed, ${count('pending')} skipped, ${count('failing')} failed in ` +
      `${minutes} min, ${log}\n`,
  );
  if (status === 0) continue;
  process.exitCode = 1;
  process.stdout.write(text.slice(Math.max(text.search(/^ {2}\d+ passing/m), 0)));
}
