/** The command `livesnap`: runs a verb, prints its error if it fails, and ends with its exit status. */
import { asLivesnapError } from '../errors.js';
import { asksForJson } from './arguments.js';
import { dropProcess, spawnEarly } from './early-process.js';
import { complain, Output } from './output.js';
import { flush, guardStandardStreams } from './standard-output.js';
import { withVerb } from './with-verb.js';

guardStandardStreams();

async function main(): Promise<void> {
  const args = withVerb(process.argv.slice(2));
  let status: number;
  try {
    await spawnEarly(args);
    const { run } = await import('./program.js'); // after the spawn
    status = await run(args);
  } catch (thrown) {
    const error = asLivesnapError(thrown, 'Set LIVESNAP_DEBUG=1 to see the stack.');
    if (asksForJson(args)) new Output(true, true).error(error);
    else complain(error);
    status = error.exitStatus;
  }
  await dropProcess();
  await flush(process.stdout);
  await flush(process.stderr);
  process.exit(status);
}

void main();
