/**
 * The user's defaults: `livesnap/config.json` in the XDG directory of configurations.
 *
 * Invariants:
 * - A file with an unknown key or a value of the wrong type is refused: a mistyped default would be ignored unnoticed.
 * - Paths in the file are absolute, because a command runs in any directory.
 * - No file is no error. Commands that need none of its values do not read it.
 */
import { isAbsolute, join } from 'node:path';
import { baseDirectory } from './environment.js';
import { LivesnapError } from './errors.js';
import { integer, list, object, optional, parse, type SchemaError, satisfying, text } from './schema.js';
import { readSmallFile } from './small-file.js';

export interface Config {
  /** Absolute path. */
  readonly store?: string | undefined;
  /** As `--memory` takes it. */
  readonly memory?: string | undefined;
  readonly cpus?: number | undefined;
  /** As `--block` takes them. */
  readonly block?: readonly string[] | undefined;
  /** As `--net` takes them. */
  readonly net?: readonly string[] | undefined;
}

const MAX_FILE_BYTES = 64 << 10;
const MAX_CPUS = 999_999_999;
/** More than any machine can have. */
const MAX_DEVICES = 64;

const devices = optional(list(text(), 0, MAX_DEVICES));
const FIELDS = {
  store: optional(satisfying(text(), isAbsolute, 'is not an absolute path')),
  memory: optional(text()),
  cpus: optional(integer(1, MAX_CPUS)),
  block: devices,
  net: devices,
};
const CONFIG = object(FIELDS);

/** For hints: an example of each value. */
const KEYS_HINT =
  'Keys: store ("/srv/store"), memory ("1G"), cpus (2), block (["path=/srv/disk.img,cow"]), net (["user"]).';

/** The error for a config file. `problem` completes the sentence "The config file FILE: …". */
export const configError = (file: string, problem: string, hint = KEYS_HINT): LivesnapError =>
  new LivesnapError('USAGE', `the config file ${file}: ${problem}`, { hint });

/** Where the config file is or would be. Null: the home directory is unknown. */
export function configFile(env: NodeJS.ProcessEnv = process.env): string | null {
  const dir = baseDirectory('XDG_CONFIG_HOME', env);
  return dir === null ? null : join(dir, 'livesnap/config.json');
}

/** The config; empty if there is no file. Errors: USAGE, NO_PERMISSION, SYSTEM. */
export function readConfig(file: string | null = configFile()): Config {
  if (file === null) return {};
  let content: string;
  try {
    content = readSmallFile(file, MAX_FILE_BYTES, (problem) => configError(file, problem));
  } catch (error) {
    if (error instanceof LivesnapError && error.code === 'NO_SUCH_FILE') return {};
    throw error;
  }
  let value: unknown;
  try {
    value = JSON.parse(content);
  } catch (error) {
    throw configError(file, `it is not JSON: ${(error as Error).message}`, 'Example: {"memory": "1G"}');
  }
  return parse(CONFIG, value, ({ message }: SchemaError) => configError(file, message));
}
