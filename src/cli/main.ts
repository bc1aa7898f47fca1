#!/usr/bin/env node
/** The command `livesnap`: runs a verb, prints its error if it fails, and ends with its exit status. */
import { LivesnapError } from '../errors.js';
import { withVerb } from './arguments.js';
import { complain, Output } from './output.js';
import { run } from './program.js';
import { flush, guardStandardStreams } from './standard-output.js';

function asLivesnapError(thrown: unknown): LivesnapError {
  if (thrown instanceof LivesnapError) return thrown;
  const { message, syscall } = thrown as NodeJS.ErrnoException;
  if (syscall === 'uv_cwd')
    return new LivesnapError('NO_SUCH_FILE', 'the working directory was removed', {
      hint: 'Change to a directory that exists.',
      cause: thrown,
    });
  return new LivesnapError('SYSTEM', `internal error: ${message ?? thrown}`, {
    hint: 'Set LIVESNAP_DEBUG=1 to see the stack.',
    cause: thrown,
  });
}

guardStandardStreams();
const args = withVerb(process.argv.slice(2));
let status: number;
try {
  status = await run(args);
} catch (thrown) {
  const error = asLivesnapError(thrown);
  const end = args.indexOf('--');
  if (args.slice(0, end < 0 ? undefined : end).includes('--json')) new Output(true, true).error(error);
  else complain(error);
  status = error.exitStatus;
}
await flush(process.stdout);
await flush(process.stderr);
process.exit(status);
