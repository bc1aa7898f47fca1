/**
 * The base class of all errors that livesnap raises on purpose, and the complete list of their codes.
 *
 * Invariants:
 * - A code never changes its meaning. docs/errors.md describes every code (a test compares the two).
 * - `message` says what happened, in one sentence without a final period. `hint` says what to do.
 */

/** Exit statuses of the CLI (docs/errors.md). */
export const ExitStatus = { failed: 1, usage: 2, notFound: 3, damaged: 4, unsupportedHost: 5 } as const;
export type ExitStatus = (typeof ExitStatus)[keyof typeof ExitStatus];

/** Every code with its exit status. */
export const ERROR_CODES = {
  // command line
  USAGE: ExitStatus.usage,
  NAME_IN_USE: ExitStatus.usage,
  AMBIGUOUS: ExitStatus.usage,
  HAS_OTHER_TAGS: ExitStatus.usage,
  // missing things
  NO_SUCH_FILE: ExitStatus.notFound,
  NO_SUCH_MACHINE: ExitStatus.notFound,
  NO_SUCH_SNAPSHOT: ExitStatus.notFound,
  NO_SUCH_TAG: ExitStatus.notFound,
  NO_SUCH_REGION: ExitStatus.notFound,
  NO_SUCH_JOB: ExitStatus.notFound,
  // images and machines
  BAD_IMAGE: ExitStatus.failed,
  BAD_STATE: ExitStatus.failed,
  MACHINE_FAILED: ExitStatus.failed,
  MACHINE_GONE: ExitStatus.failed,
  DISKS_NOT_SAVED: ExitStatus.failed,
  NOT_POSSIBLE_NOW: ExitStatus.failed,
  TIMED_OUT: ExitStatus.failed,
  // the store
  NEWER_FORMAT: ExitStatus.failed,
  READ_ONLY: ExitStatus.failed,
  NO_PERMISSION: ExitStatus.failed,
  NO_SPACE: ExitStatus.failed,
  STORE_BUSY: ExitStatus.failed,
  NOT_A_STORE: ExitStatus.failed,
  DAMAGED: ExitStatus.damaged,
  REMOTE_FAILED: ExitStatus.failed,
  // the host
  NO_KVM: ExitStatus.unsupportedHost,
  HOST_LACKS: ExitStatus.unsupportedHost,
  SYSTEM: ExitStatus.failed,
} as const satisfies Record<string, ExitStatus>;

export type ErrorCode = keyof typeof ERROR_CODES;

/** Damage that was found in a store. */
export interface Damage {
  /** Relative to the directory of the store. */
  readonly file: string;
  /** Of the damage in the file, in bytes; null: the whole file. */
  readonly offset: number | null;
  /** The ID of the snapshot that was read. */
  readonly snapshot: string | null;
  /** The region of the snapshot that was read. */
  readonly region: string | null;
  /** The bytes of the region that cannot be read, up to but not including `toBytes`. There may be more. */
  readonly fromBytes: number | null;
  readonly toBytes: number | null;
}

export interface ErrorDetails {
  /** What the user can do, in whole sentences. */
  hint?: string;
  damage?: Damage | undefined;
  cause?: unknown;
}

/** An error as plain data: between processes and Workers, and under `error` with `--json`. */
export interface PlainError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string | null;
  /** Only of a DAMAGED error that knows it. */
  readonly damage?: Damage;
}

/** The mark of all copies of {@link LivesnapError}. Each bundle has one, and `livesnap serve` loads a second bundle. */
const BRAND = Symbol.for('livesnap.LivesnapError');

export class LivesnapError extends Error {
  /** True for errors of another bundle's copy, too. Subclasses are compared as usual. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    // biome-ignore lint/complexity/noThisInStatic: subclasses inherit this method.
    if (this !== LivesnapError) return Function.prototype[Symbol.hasInstance].call(this, value);
    return typeof value === 'object' && value !== null && BRAND in value;
  }

  get [BRAND](): true {
    return true;
  }

  override readonly name: string = 'LivesnapError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly damage: Damage | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.hint = details.hint;
    this.damage = details.damage;
  }

  get exitStatus(): ExitStatus {
    return ERROR_CODES[this.code];
  }

  /** The object printed under `error` with `--json` and sent by the control API. */
  toJSON(): PlainError {
    const { code, message, hint = null, damage } = this;
    return { code, message, hint, ...(damage === undefined ? {} : { damage }) };
  }

  /** Restores an error that {@link toJSON} made in another process or thread. */
  static fromJSON({ code, message, hint, damage }: PlainError): LivesnapError {
    return new LivesnapError(code, message, { ...(hint === null ? {} : { hint }), damage });
  }

  /** Restores an error that ended another thread, which loses its class on the way. Null for an error of any other class. */
  static fromThread({
    message,
    code,
    hint,
  }: {
    message: string;
    code?: unknown;
    hint?: unknown;
  }): LivesnapError | null {
    if (typeof code !== 'string' || !Object.hasOwn(ERROR_CODES, code)) return null;
    return new LivesnapError(code as ErrorCode, message, typeof hint === 'string' ? { hint } : {});
  }
}

/**
 * Any thrown value as an error of ours. An unexpected one becomes an internal error with its message, and `hint` tells
 * where its stack is.
 */
export function asLivesnapError(thrown: unknown, hint?: string): LivesnapError {
  if (thrown instanceof LivesnapError) return thrown;
  const { message, syscall } = (thrown ?? {}) as Partial<NodeJS.ErrnoException>;
  if (syscall === 'uv_cwd')
    return new LivesnapError('NO_SUCH_FILE', 'the working directory was removed', {
      hint: 'Change to a directory that exists.',
      cause: thrown,
    });
  return new LivesnapError('SYSTEM', `internal error: ${message ?? thrown}`, {
    ...(hint === undefined ? {} : { hint }),
    cause: thrown,
  });
}

const CODE_OF_ERRNO: Record<string, ErrorCode> = {
  ENOSPC: 'NO_SPACE',
  EDQUOT: 'NO_SPACE',
  EROFS: 'READ_ONLY',
  EACCES: 'NO_PERMISSION',
  EPERM: 'NO_PERMISSION',
};

/** A failed system call of the addon. `errno` is Linux's number, `errnoName` its name ('ENOSPC'). */
export class SystemError extends LivesnapError {
  override readonly name = 'SystemError';
  readonly errno: number;
  readonly errnoName: string;
  readonly syscall: string;

  constructor(syscall: string, errno: number, errnoName: string, message: string) {
    super(CODE_OF_ERRNO[errnoName] ?? 'SYSTEM', `${syscall}: ${message}`);
    this.errno = errno;
    this.errnoName = errnoName;
    this.syscall = syscall;
  }
}
