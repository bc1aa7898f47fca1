/** The error for a saved state that cannot be restored, whichever part of it is wrong. */
import { LivesnapError } from '../errors.js';

/** `problem` completes the sentence "the saved state is invalid: …" and names the field. */
export const invalidState = (problem: string, cause?: unknown): LivesnapError =>
  new LivesnapError('BAD_STATE', `the saved state is invalid: ${problem}`, {
    hint: 'The snapshot is damaged, or another version of livesnap saved it. Restore another snapshot, or check this one with livesnap check --read-data.',
    ...(cause === undefined ? {} : { cause }),
  });
