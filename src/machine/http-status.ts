/** The HTTP status that an error is answered with. */
import { type ErrorCode, ExitStatus, LivesnapError } from '../errors.js';

const BY_CODE: Partial<Record<ErrorCode, number>> = {
  NO_PERMISSION: 403,
  NAME_IN_USE: 409,
  AMBIGUOUS: 409,
  HAS_OTHER_TAGS: 409,
  NOT_POSSIBLE_NOW: 409,
  STORE_BUSY: 409,
  MACHINE_GONE: 410,
  BAD_IMAGE: 422,
  HOST_LACKS: 422,
  NO_SPACE: 507,
};
const BY_EXIT: Partial<Record<ExitStatus, number>> = {
  [ExitStatus.usage]: 400,
  [ExitStatus.notFound]: 404,
};

/** A request that is refused with an HTTP status of its own. */
export class HttpError extends LivesnapError {
  constructor(
    readonly status: number,
    message: string,
    hint?: string,
  ) {
    super('USAGE', message, hint === undefined ? {} : { hint });
  }
}

export const httpStatusOf = (error: LivesnapError): number =>
  error instanceof HttpError ? error.status : (BY_CODE[error.code] ?? BY_EXIT[error.exitStatus] ?? 500);
