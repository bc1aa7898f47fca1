import { setTimeout as sleep } from 'node:timers/promises';
import { runRoot } from '../environment.js';
import { LivesnapError } from '../errors.js';
import { defineVerb, flag } from './verb.js';

/** How long the machine's process may take to end, after its disks are saved. */
const END_TIMEOUT_MS = 30_000;
/** How long a process that saves disks may take to tell that it lives. */
const ANSWER_TIMEOUT_MS = 3000;

export const verb = defineVerb({
  name: 'stop',
  summary: 'Stop a machine, or clean up a dead one',
  operands: ['<machine>'],
  usesStore: false,
  options: {
    discard: flag('--discard', 'Do not save what was written to disks of --block snapshot='),
  },
  notes: [
    'State that was not saved is lost. What was written to disks that come from a',
    'snapshot is first saved in the store, with the tag NAME-disk.',
  ].join('\n'),
  async run({ operands, options, output }) {
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
    const answer = client.stop({ discard: options.discard }).then(
      () => null,
      (error: unknown) => error,
    );
    // The answer comes after the disks are saved. That may take long, but the process tells that it lives.
    let isAlive = true;
    const pending = Symbol('pending');
    const isPending = async (): Promise<boolean> =>
      (await Promise.race([answer, sleep(END_TIMEOUT_MS, pending, { ref: false })])) === pending;
    while (isAlive && (await isPending()))
      isAlive = await client.describe(ANSWER_TIMEOUT_MS).then(
        () => true,
        () => false,
      );
    const refusal = await Promise.race([answer, null]);
    if (refusal instanceof LivesnapError && refusal.code === 'DISKS_NOT_SAVED') throw refusal;
    if (!(await ended(isAlive ? END_TIMEOUT_MS : 0))) {
      if (refusal !== null) throw refusal;
      const pid = (await directory.readRecord())?.pid;
      throw new LivesnapError('TIMED_OUT', `timed out: the process of the machine ${name} is still running`, {
        ...(pid === undefined ? {} : { hint: `To kill it: kill -9 ${pid}` }),
      });
    }
    output.result({ name, state: 'stopped' }, () => `Stopped ${name}`);
    return 0;
  },
});
