// Makes what the npm package carries beside the bundles. In prebuilds/ these are the addon, and better-sqlite3 for Node
// 20. In dist/bin these are V8's code caches for every Node with long-term support. `npm pack` runs this. With --this-node, for tests, it builds nothing, and leaves out what another Node needs.
//
// Invariants:
// - A binary needs no newer glibc than MAX_VERSIONS has, and no other library than glibc and the compiler's. Otherwise
//   this fails.
// - A binary needs no certain version of Node, except the one of better-sqlite3.
//
// Rejected: prebuildify. It asks for the headers of one Node version by number, which node-gyp downloads from
// nodejs.org. Node-API needs none but those of the running Node, and there is one platform.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MAJORS, nodeOf } from './node-versions.mjs';

/** Debian 12, Ubuntu 22.04 and RHEL 9 have these, and all that is newer. */
const MAX_VERSIONS = { GLIBC: '2.34', GLIBCXX: '3.4.29', CXXABI: '1.3.13' };
const LIBRARIES = /^(lib(c|m|dl|pthread|stdc\+\+)\.so\.[26]|libgcc_s\.so\.1|ld-linux-x86-64\.so\.2)$/;
/** DF_1_NODELETE of elf.h: a process must not unload the addon, because native threads may run its code. */
const NODELETE = 0x8n;

const root = fileURLToPath(new URL('..', import.meta.url));
const target = join(root, 'prebuilds');
const SQLITE = 'node_modules/better-sqlite3-node20';

function fail(sentence) {
  process.stderr.write(`livesnap: ${sentence}\n`);
  process.exit(1);
}

function run(command, ...args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: root, encoding: 'utf8' });
  if (status !== 0) fail(`${command} ${args.join(' ')} failed: ${error?.message ?? `${stdout}${stderr}`}`);
  return stdout;
}

/** Compares versions such as 2.4 and 2.34. */
function isNewer(version, than) {
  const [a, b] = [version, than].map((each) => each.split('.').map(Number));
  const at = a.findIndex((part, i) => part !== (b[i] ?? 0));
  return at >= 0 && a[at] > (b[at] ?? 0);
}

/** What of the output of `objdump -p -T` does not fit every system that the package is for. */
export function misfits(dump) {
  const found = [];
  for (const [, name, version] of dump.matchAll(/\b(GLIBC|GLIBCXX|CXXABI)_([\d.]+)\b/g))
    if (isNewer(version, MAX_VERSIONS[name])) found.push(`${name}_${version}`);
  for (const [, library] of dump.matchAll(/^\s*NEEDED\s+(\S+)/gm))
    if (!LIBRARIES.test(library)) found.push(library);
  return [...new Set(found)];
}

/**
 * Links the addon's objects once more, with the C++ library in it: that of RHEL 9 is older than this compiler. Neither
 * its symbols nor the addon's own are visible outside, and both are bound here, so that neither meets the ones that Node
 * uses.
 */
function linkAddon(file) {
  const objects = join(root, 'addon/build/Release/obj.target/livesnap');
  const sources = readdirSync(objects, { recursive: true, encoding: 'utf8' });
  run(
    process.env.CXX || 'g++',
    ...['-shared', '-pthread', '-m64', '-s', '-static-libstdc++', '-Wl,-z,nodelete', '-Wl,-Bsymbolic'],
    ...[
      `-Wl,--version-script=${join(root, 'addon/exports.map')}`,
      '-Wl,--gc-sections',
      '-Wl,-soname=livesnap.node',
      '-o',
      file,
    ],
    ...sources.filter((name) => name.endsWith('.o')).map((name) => join(objects, name)),
  );
  const flags = BigInt(/^\s*FLAGS_1\s+(\S+)/m.exec(run('objdump', '-p', file))?.[1] ?? 0);
  if ((flags & NODELETE) === 0n) fail(`${file} can be unloaded`);
}

/** What Node 20 loads of better-sqlite3. */
function carrySqlite(dir) {
  for (const name of ['LICENSE', 'package.json', 'lib'])
    cpSync(join(root, SQLITE, name), join(dir, name), { recursive: true });
  const binary = 'build/Release/better_sqlite3.node';
  mkdirSync(join(dir, 'build/Release'), { recursive: true });
  run('strip', '--strip-unneeded', '-o', join(dir, binary), join(root, SQLITE, binary));
}

function prebuild(isForThisNode) {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    fail('the npm package is made on Linux on x86-64');
  if (!existsSync(join(root, SQLITE))) fail('the npm package is made in a checkout, after npm ci');
  const draft = join(root, 'prebuilds.draft');
  rmSync(draft, { recursive: true, force: true });
  const dir = join(draft, 'linux-x64');
  mkdirSync(dir, { recursive: true });
  if (!isForThisNode) run(process.execPath, 'scripts/build-native.mjs');
  linkAddon(join(dir, 'livesnap.node'));
  if (!isForThisNode) run(nodeOf('20'), 'scripts/build-native.mjs');
  if (!isForThisNode || process.versions.node.startsWith('20.'))
    carrySqlite(join(dir, 'better-sqlite3-node20'));
  for (const name of readdirSync(dir, { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.node')) continue;
    const found = misfits(run('objdump', '-p', '-T', join(dir, name)));
    if (found.length > 0)
      fail(`${name} needs ${found.join(', ')}: build it on an older system, such as Debian 12`);
  }
  rmSync(target, { recursive: true, force: true });
  renameSync(draft, target);
  if (isForThisNode) return;
  run(process.execPath, 'scripts/bundle.mjs');
  for (const major of MAJORS) run(nodeOf(major), 'scripts/bundle.mjs', '--caches');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) prebuild(process.argv.includes('--this-node'));
