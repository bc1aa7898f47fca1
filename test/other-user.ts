/** Tests that run as another user need code that this user can read. The checkout may be in a private directory. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { projectRoot } from '../src/native/project-root.js';

/** What livesnap and the children of tests load. */
const PARTS = [
  'package.json',
  'dist',
  'migrations',
  'addon/build/Release/livesnap.node',
  'guest/build',
  'node_modules',
];

let copy: string | null = null;

/** The checkout, or a copy of it in a directory that `uid` can read. Only root may ask. */
export function checkoutFor(uid: number): string {
  if (canRun(uid, projectRoot)) return projectRoot;
  copy ??= copyForAll();
  return copy;
}

function canRun(uid: number, root: string): boolean {
  const main = join(root, 'dist/bin/livesnap.js');
  try {
    execFileSync(process.execPath, [main, '--version'], { uid, gid: uid, cwd: '/', stdio: 'pipe' });
    return true;
  } catch {
    return false;
  }
}

function copyForAll(): string {
  const root = mkdtempSync(join(tmpdir(), 'livesnap-checkout-'));
  process.once('exit', () => rmSync(root, { recursive: true, force: true }));
  for (const part of PARTS) {
    mkdirSync(dirname(join(root, part)), { recursive: true });
    execFileSync('cp', ['-rL', join(projectRoot, part), join(root, part)]);
  }
  execFileSync('chmod', ['-R', 'a+rX', root]);
  return root;
}
