import { runRoot } from '../environment.js';
import { LivesnapError } from '../errors.js';
import { defineVerb } from './verb.js';

/** How long the machine's process may take to end. */
const END_TIMEOUT_MS = 30_000;

export const verb = defineVerb({
  name: 'stop',
  summary: 'Stop a machine, or clean up a dead one',
  operands: ['<machine>'],
  usesStore: false,
  options: {},
  notes: 'State that was not saved is lost.',
  async run({ operands, output }) {
    const [name] = operands as [string];
    const { RunDirectory } = await import('../server/run-directory.js');
    const { findMachine } = await import('../server/client.js');
    const directory = new RunDirectory(runRoot(), name);
    if ((await directory.look()) === 'dead') {
      const claimed = await directory.claim();
      await claimed.remove();
      claimed.release();
      output.result({ name, state: 'gone' }, () => `Cleaned up ${name}; its process was dead`);
      return 0;
    }
    const ended = await directory.watchEnd();
    const client = await findMachine(name);
    // A machine that is already ending refuses the request. Only the end of the process counts.
    const answer = client.stop().then(
      () => null,
      (error: unknown) => error,
    );
    if (!(await ended(END_TIMEOUT_MS))) {
      const error = await Promise.race([answer, null]);
      if (error !== null) throw error;
      const pid = (await directory.readRecord())?.pid;
      throw new LivesnapError('TIMED_OUT', `timed out: the process of the machine ${name} is still running`, {
        ...(pid === undefined ? {} : { hint: `To kill it: kill -9 ${pid}` }),
      });
    }
    output.result({ name, state: 'stopped' }, () => `Stopped ${name}`);
    return 0;
  },
});
