/**
 * Loads the C++ addon and gives it the errors that its failures throw. The only module that names the .node
 * file; the typed faces of what it exports are the other files of this folder.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { LivesnapError, SystemError } from '../errors.js';
import { loadAddon } from './modules.js';
import { projectRoot } from './project-root.js';

export { projectRoot };

function load(): Record<string, unknown> {
  const file = join(projectRoot, 'addon/build/Release/livesnap.node');
  if (!existsSync(file)) {
    throw new LivesnapError('SYSTEM', `the addon ${file} has not been built`, {
      hint: 'Run npm run build:native.',
    });
  }
  const addon = loadAddon(file);
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
