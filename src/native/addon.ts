/**
 * Loads the C++ addon when a function of it is first called. The other files of this folder give its functions types.
 *
 * Invariants:
 * - Only this file names the `.node` file.
 * - Importing a file of this folder never fails for want of the addon: verbs that only read work without it.
 * - An addon that is there but cannot be loaded is an error, never a reason to continue without it.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { LivesnapError, SystemError } from '../errors.js';
import { loadAddon } from './modules.js';
import { projectRoot } from './project-root.js';

export { projectRoot };

const FILE = join(projectRoot, 'addon/build/Release/livesnap.node');

/** False on platforms it is not for, and after an installation without a compiler. */
export const isAddonBuilt: boolean = existsSync(FILE);

/** The error of whatever needs the addon where it is not built. */
export function missingAddon(): LivesnapError {
  const isForThisPlatform = process.platform === 'linux' && process.arch === 'x64';
  return new LivesnapError('SYSTEM', 'the C++ addon is not built', {
    hint: isForThisPlatform
      ? `Run npm run build:native in ${projectRoot} (gcc, g++, make and python3 are needed).`
      : 'It needs Linux on x86-64. On this platform use ls, show, stats, get, check and export.',
  });
}

function load(): unknown {
  if (!isAddonBuilt) throw missingAddon();
  const exported = loadAddon(FILE);
  (exported.setSystemError as (make: unknown) => void)(
    (syscall: string, errno: number, errnoName: string, message: string) =>
      new SystemError(syscall, errno, errnoName, message),
  );
  (exported.setGoneError as (make: unknown) => void)(
    () => new LivesnapError('MACHINE_GONE', 'the machine has ended'),
  );
  return exported;
}

let loaded: unknown = null;

/** The addon's exports, as the part that the caller declares. Errors: SYSTEM. */
export function addon<T>(): T {
  loaded ??= load();
  return loaded as T;
}
