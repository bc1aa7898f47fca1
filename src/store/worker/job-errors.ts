/**
 * Errors of a page Worker as plain data. Structured cloning loses the class of an error, and with it whether a store is
 * damaged, its disk is full, or livesnap has a bug.
 *
 * Invariant: the main thread gets an error of the class and with the fields that the Worker's error had.
 */
import { LivesnapError, SystemError } from '../../errors.js';
import { type DamagedPart, DamageError } from '../disk/damage.js';

export interface JobError {
  readonly message: string;
  readonly code?: string | undefined;
  readonly hint?: string | undefined;
  readonly damage?:
    | { file: string; offset: number | null; why: string; part: DamagedPart | null }
    | undefined;
  /** Fields of a {@link SystemError}. */
  readonly native?: { syscall: string; errno: number; errnoName: string } | undefined;
  /** Fields of Node's system errors. */
  readonly errno?: number | undefined;
  readonly syscall?: string | undefined;
  readonly path?: string | undefined;
  readonly dest?: string | undefined;
  readonly stack?: string | undefined;
}

export function toJobError(thrown: unknown): JobError {
  const error = thrown as Error & NodeJS.ErrnoException & { dest?: string };
  const { message, stack, code, syscall, path, dest } = error;
  if (error instanceof DamageError) {
    const { file, offset, why, part } = error;
    return { message, code, damage: { file, offset, why, part } };
  }
  if (error instanceof SystemError) {
    const { errno, errnoName } = error;
    return { message, native: { syscall: error.syscall, errno, errnoName } };
  }
  const hint = error instanceof LivesnapError ? error.hint : undefined;
  return { message, stack, code, hint, errno: error.errno, syscall, path, dest };
}

export function fromJobError(error: JobError): Error {
  if (error.damage) {
    const { file, offset, why, part } = error.damage;
    return new DamageError(file, offset, why, part);
  }
  if (error.native) {
    const { syscall, errno, errnoName } = error.native;
    return new SystemError(syscall, errno, errnoName, error.message.replace(`${syscall}: `, ''));
  }
  const { message, code, stack, errno, syscall, path, dest } = error;
  return (
    LivesnapError.fromThread(error) ??
    Object.assign(new Error(message), { code, stack, errno, syscall, path, dest })
  );
}

/**
 * Why a Worker has ended, as the error of its jobs. `error` is what it threw, if it did: its own message counts when it
 * was a LivesnapError, such as a package that cannot be loaded.
 */
export function workerFailure(why: string, error?: Error): LivesnapError {
  return (
    (error && LivesnapError.fromThread(error)) ??
    new LivesnapError('SYSTEM', `a worker thread of the store failed: ${why}`, {
      hint: 'Try again. If it fails again, report this message as a bug.',
      cause: error,
    })
  );
}
