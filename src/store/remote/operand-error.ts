/**
 * Errors of a directory that is the operand of a copy, an export or an import. A hint about --store would lead to the
 * other store.
 */
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
