/**
 * Loads the C++ addon when a function of it is first called. The other files of this folder give its functions types.
 *
 * Invariants:
 * - Only this file names the `.node` file.
 * - Importing a file of this folder never fails for want of the addon: verbs that only read work without it.
 * - An addon that is there but cannot be loaded is an error, never a reason to continue without it.
 */
import { LivesnapError, SystemError } from '../errors.js';
import { loadAddon } from './modules.js';
import { findBinary, isForOtherLibc, isLinuxX64 } from './prebuilds.js';
import { projectRoot } from './project-root.js';

export { projectRoot };

const PREBUILT = 'livesnap.node';
const FILE = findBinary('addon/build/Release/livesnap.node', PREBUILT);

/** False on platforms it is not for, and in a checkout that was installed without a compiler. */
export const isAddonBuilt: boolean = FILE !== null;

/** The error of whatever needs the addon where it is not built. */
export function missingAddon(): LivesnapError {
  const build = `Run npm run build:native in ${projectRoot} (gcc, g++, make and python3 are needed).`;
  return new LivesnapError('SYSTEM', 'the C++ addon is not built', {
    hint: !isLinuxX64
      ? 'It needs Linux on x86-64. On this platform use ls, show, stats, get, check and export.'
      : isForOtherLibc(PREBUILT)
        ? `The package has it for glibc only, and this system uses musl. ${build}`
        : build,
  });
}

function load(): unknown {
  if (FILE === null) throw missingAddon();
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
