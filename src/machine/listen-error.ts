/** The error of a server that cannot listen. */
import { LivesnapError } from '../errors.js';

/** `where`: for people, such as `port 8010`. `hint`: how to choose another one. NAME_IN_USE if it is taken, else USAGE. */
export function listenError(where: string, cause: unknown, hint: string): LivesnapError {
  const { code, message } = cause as NodeJS.ErrnoException;
  return code === 'EADDRINUSE'
    ? new LivesnapError('NAME_IN_USE', `${where} is in use by another program`, { hint, cause })
    : new LivesnapError('USAGE', `cannot listen on ${where}: ${message}`, { hint, cause });
}
