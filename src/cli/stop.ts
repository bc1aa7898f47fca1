import { runRoot } from '../environment.js';
import { LivesnapError } from '../errors.js';
import { defineVerb } from './verb.js';

/** How long the machine's process may take to end. */
const END_TIMEOUT_MS = 30_000;

export const verb = defineVerb({
  name: 'stop',
  summary: 'end a machine, or clear away one that is gone',
  operands: ['<machine>'],
  options: {},
  notes: 'What the machine has not saved is lost.',
  async run({ operands, output }) {
    const [name] = operands as [string];
    const { RunDirectory } = await import('../server/run-directory.js');
    const { findMachine } = await import('../server/client.js');
    const directory = new RunDirectory(runRoot(), name);
    if ((await directory.look()) === 'dead') {
      const claimed = await directory.claim();
      await claimed.remove();
      claimed.release();
      output.result({ name, state: 'gone' }, () => `${name} was gone; it is cleared away`);
      return 0;
    }
    const ended = await directory.watchEnd();
    const client = await findMachine(name);
    // Whatever the answer, what counts is that the process ends: it may have been ending already.
    const answer = client.stop().then(
      () => null,
      (error: unknown) => error,
    );
    if (!(await ended(END_TIMEOUT_MS))) {
      const error = await Promise.race([answer, null]);
      if (error !== null) throw error;
      const pid = (await directory.readRecord())?.pid;
      throw new LivesnapError('TIMED_OUT', `the machine ${name} does not end`, {
        ...(pid === undefined ? {} : { hint: `Its process can be killed: kill -9 ${pid}.` }),
      });
    }
    output.result({ name, state: 'stopped' }, () => `${name} is stopped`);
    return 0;
  },
});
