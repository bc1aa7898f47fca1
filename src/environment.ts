/**
 * Directories and ids that come from the environment of the process: the default store, the folder of run
 * directories, the temporary directory, the user's id.
 *
 * Invariants: every directory is absolute, because a machine's process has another working directory than its
 * starter; a variable that is empty counts as unset, a relative one is ignored and reported once (XDG Base
 * Directory Specification); a user without an entry in /etc/passwd is a user like any other.
 */
import { userInfo } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { LivesnapError } from './errors.js';
import { note } from './notes.js';

type Env = NodeJS.ProcessEnv;

/** The directory that a variable names; null when it is unset, empty or relative. */
function directoryIn(env: Env, name: string): string | null {
  const path = env[name];
  if (!path) return null;
  if (isAbsolute(path)) return path;
  note(name, `${name} is ignored: ${JSON.stringify(path)} is not an absolute path`);
  return null;
}

/** The user's id. `os.userInfo()` would fail for an id that /etc/passwd does not list. */
export const userId = (): number => process.getuid!();

/** `$HOME`, else the home directory in /etc/passwd; null when there is neither. */
function homeDirectory(env: Env): string | null {
  const home = directoryIn(env, 'HOME');
  if (home !== null) return home;
  try {
    const { homedir } = userInfo();
    return isAbsolute(homedir) ? homedir : null;
  } catch {
    return null;
  }
}

const BELOW_HOME = { XDG_DATA_HOME: '.local/share', XDG_CACHE_HOME: '.cache' } as const;

/** A base directory of the XDG specification; null when it would be below a home directory that is not known. */
export function baseDirectory(name: keyof typeof BELOW_HOME, env: Env = process.env): string | null {
  const given = directoryIn(env, name);
  if (given !== null) return given;
  const home = homeDirectory(env);
  return home === null ? null : join(home, BELOW_HOME[name]);
}

/** The store where none is named, neither by option nor by LIVESNAP_STORE. Errors: USAGE. */
export function defaultStore(env: Env = process.env): string {
  const data = baseDirectory('XDG_DATA_HOME', env);
  if (data !== null) return join(data, 'livesnap');
  throw new LivesnapError('USAGE', 'there is no default store: the home directory is not known', {
    hint: 'Set HOME, or name the store with --store DIR or LIVESNAP_STORE.',
  });
}

/** As `os.tmpdir()`, but never relative. */
export function temporaryDirectory(env: Env = process.env): string {
  return directoryIn(env, 'TMPDIR') ?? directoryIn(env, 'TMP') ?? directoryIn(env, 'TEMP') ?? '/tmp';
}

/**
 * The folder of all run directories: `$XDG_RUNTIME_DIR/livesnap`, else /run/livesnap for root, else a directory
 * of the user's own below the temporary one.
 */
export function runRoot(env: Env = process.env): string {
  const runtime = directoryIn(env, 'XDG_RUNTIME_DIR');
  if (runtime !== null) return join(runtime, 'livesnap');
  const uid = userId();
  return uid === 0 ? '/run/livesnap' : join(temporaryDirectory(env), `livesnap-${uid}`);
}
