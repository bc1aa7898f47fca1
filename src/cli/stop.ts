import { setTimeout as sleep } from 'node:timers/promises';
import { runRoot } from '../environment.js';
import { asLivesnapError, LivesnapError } from '../errors.js';
import { STOP_TIMEOUT_MS, type StopRequest, type StopResult } from '../server/control-api.js';
import { formatCount, formatDuration } from './format.js';
import { complain } from './output.js';
import { parseSeconds } from './values.js';
import { defineVerb, flag, valued } from './verb.js';

/** How long the machine's process may take to end, after the guest's time. */
const END_TIMEOUT_MS = 30_000;
/** How long a process that saves disks may take to tell that it lives. */
const ANSWER_TIMEOUT_MS = 3000;
/** How long to wait before a process that does not listen yet is asked again. */
const ASK_AGAIN_MS = 50;

/** `gone`: its process had died before. */
type Stopped = StopResult | { readonly name: string; readonly state: 'gone' };

export const verb = defineVerb({
  name: 'stop',
  operands: ['<machine...>'],
  usesStore: false,
  options: {
    timeout: valued(
      '--timeout <seconds>',
      'How long the guest may take to power off (default: 10)',
      parseSeconds,
    ),
    force: flag('--force', 'End the machine at once, without asking the guest'),
    discard: flag('--discard', 'Do not save disks that came from a snapshot'),
  },
  notes: [
    'stop presses the power button. It ends a guest that does not listen, or does not',
    'power off in time. A save in progress is completed first, within the same time.',
    'Changes to disks that came from a snapshot are saved with the tag NAME-disk.',
    'Memory that was not saved is lost.',
  ].join('\n'),
  async run({ operands, options, output }) {
    const request = {
      force: options.force,
      discard: options.discard,
      timeoutMs: options.timeout ?? STOP_TIMEOUT_MS,
    };
    const names = [...new Set(operands)];
    const [only] = names;
    if (names.length === 1) {
      const stopped = await stopMachine(only!, request);
      output.result(stopped, () => sentenceOf(stopped, request));
      return 0;
    }
    const { checkMachineName } = await import('../server/run-directory.js');
    names.forEach(checkMachineName);
    const settled = await Promise.allSettled(names.map((name) => stopMachine(name, request)));
    const stopped = settled.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
    const failures = settled.flatMap((each) =>
      each.status === 'rejected' ? [asLivesnapError(each.reason)] : [],
    );
    output.result(
      settled.map((each, i) =>
        each.status === 'fulfilled'
          ? each.value
          : { name: names[i]!, error: asLivesnapError(each.reason).toJSON() },
      ),
      () => stopped.map((each) => sentenceOf(each, request)).join('\n'),
    );
    if (!output.json) failures.forEach(complain);
    return failures[0]?.exitStatus ?? 0;
  },
});

/** What happened, for people. */
function sentenceOf(stopped: Stopped, { timeoutMs }: StopRequest): string {
  const { name } = stopped;
  if (stopped.state === 'gone') return `Cleaned up ${name}; its process was dead`;
  const why = {
    forced: ' at once',
    noPowerButton: ' at once: the guest does not listen for the power button',
    timedOut: `: the guest did not power off within ${formatDuration(timeoutMs)}`,
    starting: ' before it ran',
  } as const;
  const how =
    stopped.how === 'poweredOff'
      ? '; the guest powered off'
      : stopped.reason === null
        ? ''
        : why[stopped.reason];
  const lost =
    stopped.lostSaves === 0
      ? ''
      : `\n${formatCount(stopped.lostSaves, 'save')} in progress could not be completed`;
  return `Stopped ${name}${how}${lost}`;
}

/** Resolves when the process has ended. Errors: NO_SUCH_MACHINE, TIMED_OUT, USAGE, and those of the API. */
async function stopMachine(name: string, request: StopRequest): Promise<Stopped> {
  const { RunDirectory } = await import('../server/run-directory.js');
  const { findMachine } = await import('../server/client.js');
  const directory = new RunDirectory(runRoot(), name);
  if ((await directory.look()) === 'dead') {
    const claimed = await directory.claim();
    await claimed.remove();
    claimed.release();
    return { name, state: 'gone' };
  }
  const ended = await directory.watchEnd();
  const client = await findMachine(name);
  let isOver = false;
  const ask = async (): Promise<StopResult> => {
    for (;;) {
      try {
        return await client.stop(request);
      } catch (error) {
        // A process that has just begun does not listen yet.
        const isEarly = error instanceof LivesnapError && error.code === 'NOT_POSSIBLE_NOW';
        if (!isEarly || isOver) throw error;
      }
      await sleep(ASK_AGAIN_MS);
    }
  };
  // A machine that is already ending refuses the request. Only the end of the process counts.
  const asked = ask().then(
    (result) => ({ result, error: null }),
    (error: unknown) => ({ result: null, error }),
  );
  // The answer comes after the disks are saved. That may take long, but the process tells that it lives.
  const pending = Symbol('pending');
  let isAlive = true;
  const isPending = async (): Promise<boolean> => {
    const waited = sleep(request.timeoutMs + END_TIMEOUT_MS, pending, { ref: false });
    return (await Promise.race([asked, waited])) === pending;
  };
  while (isAlive && (await isPending()))
    isAlive = await client.describe(ANSWER_TIMEOUT_MS).then(
      () => true,
      () => false,
    );
  const refusal = (await Promise.race([asked, null]))?.error;
  if (refusal instanceof LivesnapError && refusal.code === 'DISKS_NOT_SAVED') throw refusal;
  const hasEnded = await ended(isAlive ? END_TIMEOUT_MS : 0);
  isOver = true;
  const answer = await Promise.race([asked, hasEnded ? asked : null]);
  if (hasEnded) return answer?.result ?? { name, state: 'stopped', how: 'ended', reason: null, lostSaves: 0 };
  if (answer?.error) throw answer.error;
  const pid = (await directory.readRecord())?.pid;
  throw new LivesnapError('TIMED_OUT', `timed out: the process of the machine ${name} is still running`, {
    ...(pid === undefined ? {} : { hint: `To kill it: kill -9 ${pid}` }),
  });
}
