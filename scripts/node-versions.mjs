// Other versions of Node, from the npm packages that have their binaries and headers. They are kept in
// ~/.cache/livesnap/node/MAJOR; delete that directory to get newer ones.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** The supported versions that get bug fixes for long, oldest first. */
export const MAJORS = ['20', '22', '24'];

export const CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'livesnap/node');
const PACKAGE = `node-${process.platform}-${process.arch}`;

/** The path of a Node of this major version: the running one, or one that is downloaded once. */
export function nodeOf(major) {
  if (process.versions.node.startsWith(`${major}.`)) return process.execPath;
  const dir = join(CACHE, major);
  const file = join(dir, 'node_modules', PACKAGE, 'bin/node');
  if (!existsSync(file)) download(major, dir);
  return file;
}

function download(major, dir) {
  mkdirSync(CACHE, { recursive: true });
  const draft = mkdtempSync(join(CACHE, '.draft-'));
  try {
    const args = ['install', '--silent', '--ignore-scripts', '--prefix', draft, `${PACKAGE}@${major}`];
    const { status } = spawnSync('npm', args, { stdio: ['ignore', 'ignore', 'inherit'] });
    if (status !== 0) throw new Error(`Node ${major} cannot be installed: npm ${args.join(' ')} failed`);
    rmSync(dir, { recursive: true, force: true });
    renameSync(draft, dir);
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}
