/**
 * Settings from the environment of the process: the default store, the folder of run directories, the temporary
 * directory, the user's ID.
 *
 * Invariants:
 * - Every directory is absolute, because a machine's process has another working directory than its starter.
 * - An empty variable counts as unset. A relative directory is ignored, with a note (XDG Base Directory Specification).
 * - A user without an entry in /etc/passwd can use livesnap too.
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

/** `os.userInfo()` would fail for a user whom /etc/passwd does not list. */
export function userId(): number {
  if (process.getuid) return process.getuid();
  throw new LivesnapError('HOST_LACKS', 'this platform has no user IDs', {
    hint: 'Machines need Linux on x86-64.',
  });
}

/** `$HOME`, else the home directory from /etc/passwd; null when there is neither. */
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

const BELOW_HOME = {
  XDG_DATA_HOME: '.local/share',
  XDG_CONFIG_HOME: '.config',
  XDG_CACHE_HOME: '.cache',
  XDG_STATE_HOME: '.local/state',
} as const;

/** A base directory of the XDG specification; null when it needs the home directory and that is unknown. */
export function baseDirectory(name: keyof typeof BELOW_HOME, env: Env = process.env): string | null {
  const given = directoryIn(env, name);
  if (given !== null) return given;
  const home = homeDirectory(env);
  return home === null ? null : join(home, BELOW_HOME[name]);
}

/** The store when nothing names one (chosen-store.ts). Errors: USAGE. */
export function defaultStore(env: Env = process.env): string {
  const data = baseDirectory('XDG_DATA_HOME', env);
  if (data !== null) return join(data, 'livesnap');
  throw new LivesnapError('USAGE', 'no default store: the home directory is unknown', {
    hint: 'Set HOME, or name the store with --store DIR or LIVESNAP_STORE.',
  });
}

/** The path of a file that outlives sessions and belongs to no store. Errors: USAGE. */
export function stateFile(name: string, env: Env = process.env): string {
  const state = baseDirectory('XDG_STATE_HOME', env);
  if (state !== null) return join(state, 'livesnap', name);
  throw new LivesnapError('USAGE', `no place for the file ${name}: the home directory is unknown`, {
    hint: 'Set HOME or XDG_STATE_HOME.',
  });
}

/** As `os.tmpdir()`, but never relative. */
export const temporaryDirectory = (env: Env = process.env): string => givenTemporaryDirectory(env) ?? '/tmp';

/** For files that may be larger than the memory, which /tmp is a part of on many hosts (file-hierarchy(7)). */
export const largeTemporaryDirectory = (env: Env = process.env): string =>
  givenTemporaryDirectory(env) ?? '/var/tmp';

const givenTemporaryDirectory = (env: Env): string | null =>
  directoryIn(env, 'TMPDIR') ?? directoryIn(env, 'TMP') ?? directoryIn(env, 'TEMP');

/**
 * The folder of all run directories: `$XDG_RUNTIME_DIR/livesnap`, else /run/livesnap for root, else `livesnap-UID` in
 * the temporary directory.
 */
export function runRoot(env: Env = process.env): string {
  const runtime = directoryIn(env, 'XDG_RUNTIME_DIR');
  if (runtime !== null) return join(runtime, 'livesnap');
  const uid = userId();
  return uid === 0 ? '/run/livesnap' : join(temporaryDirectory(env), `livesnap-${uid}`);
}
