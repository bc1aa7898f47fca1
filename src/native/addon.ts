/**
 * Loads the C++ addon and gives it the errors that its failures throw. The only module that names the .node
 * file; the typed faces of what it exports are the other files of this folder.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LivesnapError, SystemError } from '../errors.js';

/** The project's root, from src/native/ or dist/src/native/. */
function findRoot(): string {
  let dir = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(dir, 'package.json'))) {
    const up = dirname(dir);
    if (up === dir)
      throw new LivesnapError(
        'SYSTEM',
        'the installation of livesnap is incomplete: package.json is missing',
      );
    dir = up;
  }
  return dir;
}

export const projectRoot = findRoot();

function load(): Record<string, unknown> {
  const file = join(projectRoot, 'addon/build/Release/livesnap.node');
  if (!existsSync(file)) {
    throw new LivesnapError('SYSTEM', `the addon ${file} has not been built`, {
      hint: 'Run npm run build:native.',
    });
  }
  const addon = createRequire(import.meta.url)(file) as Record<string, unknown>;
  (addon.setSystemError as (make: unknown) => void)(
    (syscall: string, errno: number, errnoName: string, message: string) =>
      new SystemError(syscall, errno, errnoName, message),
  );
  (addon.setGoneError as (make: unknown) => void)(
    () => new LivesnapError('MACHINE_GONE', 'the machine has ended'),
  );
  return addon;
}

/** The addon's exports, untyped; each file of this folder casts the part that is its own. */
export const addon = load();
