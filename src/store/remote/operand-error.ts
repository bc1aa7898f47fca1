/**
 * Errors of a directory that is the operand of a copy, an export or an import. A hint about --store would lead to the
 * other store.
 */
import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { type ErrorCode, LivesnapError } from '../../errors.js';

const HINTS: Partial<Record<ErrorCode, string>> = {
  NO_SUCH_FILE: 'Check the path.',
  NOT_A_STORE: 'Name the directory of a store, or a new or empty directory as destination.',
  READ_ONLY: 'Mount the file system for writing, or name another directory.',
  NO_PERMISSION: 'Run livesnap as the owner of the directory, or name another one.',
};

/** The error with a hint that fits, if it is one of the store in `dir` and its hint is about --store. */
export function operandError(dir: string, error: unknown): unknown {
  if (!(error instanceof LivesnapError)) return error;
  const { code, message, hint, cause } = error;
  if (!hint?.includes('--store') || !message.includes(dir)) return error;
  return new LivesnapError(code, message, { hint: HINTS[code] ?? 'Name another directory.', cause });
}

/**
 * To be called before `dir` is created. Creating the parent as well would fill the disk of the system if another disk
 * should have been mounted there. Errors: NO_SUCH_FILE, USAGE (the parent is no directory).
 */
export function requireParent(dir: string): void {
  const parent = dirname(dir);
  try {
    if (statSync(parent).isDirectory()) return;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENOTDIR') return; // the attempt to create it reports the cause
    throw new LivesnapError('NO_SUCH_FILE', `cannot create ${dir}: ${parent} does not exist`, {
      hint: `If it is on another disk, mount the disk. Otherwise create ${parent} first.`,
    });
  }
  throw new LivesnapError('USAGE', `cannot create ${dir}: ${parent} is not a directory`, {
    hint: 'Name a directory in a directory that exists.',
  });
}
