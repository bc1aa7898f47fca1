/** What the config file says about new machines, checked as the options of `start` are. */
import { type Config, configError } from '../config.js';
import { LivesnapError } from '../errors.js';
import type { DiskRequest } from '../vmm/disk/disk-config.js';
import type { NetRequest } from '../vmm/net/net-config.js';
import { parseBlock } from './block-option.js';
import { parseNet } from './net-option.js';
import { parseMemory } from './values.js';

export interface StartDefaults {
  readonly memoryBytes: number | undefined;
  readonly cpus: number | undefined;
  readonly disks: readonly DiskRequest[];
  readonly nets: readonly NetRequest[];
}

/** A path that depends on the working directory. */
const RELATIVE_PATH = /(?:^|,)path=(?!\/)/;

/** Errors: USAGE, which name the file and the key. */
export function startDefaults(file: string | null, { memory, cpus, block, net }: Config): StartDefaults {
  const checked = <T>(key: string, text: string, parse: (text: string) => T): T => {
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof LivesnapError && file !== null)) throw error;
      throw configError(file, `${key}: ${error.message}`, error.hint);
    }
  };
  const parseFixedBlock = (text: string): DiskRequest => {
    if (RELATIVE_PATH.test(text))
      throw new LivesnapError('USAGE', `the path in ${JSON.stringify(text)} is relative`, {
        hint: 'Write an absolute path.',
      });
    return parseBlock(text);
  };
  return {
    memoryBytes: memory === undefined ? undefined : checked('memory', memory, parseMemory),
    cpus,
    disks: (block ?? []).map((text) => checked('block', text, parseFixedBlock)),
    nets: (net ?? []).map((text) => checked('net', text, parseNet)),
  };
}

/** A value of an option, or null for `none`, which leaves out the defaults. */
export const orNone =
  <T>(parse: (text: string) => T) =>
  (text: string): T | null =>
    text === 'none' ? null : parse(text);

/** The values of an option, else the defaults. Errors: USAGE (`none` beside other values). */
export function givenOr<T>(flag: string, given: readonly (T | null)[], defaults: readonly T[]): readonly T[] {
  if (given.length === 0) return defaults;
  const values = given.filter((value) => value !== null);
  if (values.length > 0 && values.length < given.length)
    throw new LivesnapError('USAGE', `${flag} none excludes other values of ${flag}`, {
      hint: `Leave out ${flag} none.`,
    });
  return values;
}
