import { setTimeout as sleep } from 'node:timers/promises';
import { runRoot } from '../environment.js';
import { asLivesnapError } from '../errors.js';
import { formatCount, formatDuration } from '../format.js';
import type { Stopped } from '../host/stop-machine.js';
import { STOP_TIMEOUT_MS, type StopRequest } from '../machine/control-api.js';
import { complain, type Output } from './output.js';
import { parseSeconds } from './values.js';
import { defineVerb, flag, valued } from './verb.js';

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
      const stopped = await withProgressShown(output, only!, request, (onDisks) =>
        stop(only!, request, onDisks),
      );
      output.result(stopped, () => sentenceOf(stopped, request));
      return 0;
    }
    const { checkMachineName } = await import('../machine/run-directory.js');
    names.forEach(checkMachineName);
    const settled = await withProgressShown(
      output,
      formatCount(names.length, 'machine'),
      request,
      (onDisks) => Promise.allSettled(names.map((name) => stop(name, request, onDisks))),
    );
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

/**
 * Shows how much of the guest's time has passed, if it takes a while, and then how far disks are saved, which has no
 * limit.
 */
async function withProgressShown<T>(
  output: Output,
  what: string,
  { timeoutMs }: StopRequest,
  work: (onDisks: OnDisks) => Promise<T>,
): Promise<T> {
  const startMs = performance.now();
  const saved = new Map<string, Saved>();
  let showSaved: () => void = () => {};
  const areSaved = new Promise<void>((resolve) => {
    showSaved = resolve;
  });
  const working = work((name, doneBytes, totalBytes) => {
    saved.set(name, { doneBytes, totalBytes });
    showSaved();
  });
  const done = working.then(
    () => true,
    () => true, // awaited below
  );
  if (await Promise.race([done, sleep(QUICK_MS, false, { ref: false })])) return working;
  await shown(output, `stopping ${what}`, 'time', Promise.race([done, areSaved]), () => {
    const passedMs = performance.now() - startMs;
    return [passedMs, passedMs < timeoutMs ? timeoutMs : null];
  });
  await shown(output, `saving disks of ${what}`, 'bytes', done, () => {
    const all = [...saved.values()];
    const total = all.every(({ totalBytes }) => totalBytes !== null);
    const sum = (of: (each: Saved) => number | null): number =>
      all.reduce((bytes, each) => bytes + (of(each) ?? 0), 0);
    return [sum(({ doneBytes }) => doneBytes), total ? sum(({ totalBytes }) => totalBytes) : null];
  });
  return working;
}

/** Shows figures, again and again, until `done`. */
function shown(
  output: Output,
  label: string,
  unit: 'time' | 'bytes',
  done: Promise<unknown>,
  figures: () => [done: number, total: number | null],
): Promise<void> {
  return output.withProgress(
    label,
    async (onProgress) => {
      const timer = setInterval(() => onProgress(...figures()), SHOWN_EVERY_MS);
      await done;
      clearInterval(timer);
    },
    unit,
  );
}

interface Saved {
  readonly doneBytes: number;
  readonly totalBytes: number | null;
}
type OnDisks = (machine: string, doneBytes: number, totalBytes: number | null) => void;

const QUICK_MS = 1000;
const SHOWN_EVERY_MS = 200;

async function stop(name: string, request: StopRequest, onDisks: OnDisks): Promise<Stopped> {
  const { stopNamedMachine } = await import('../host/stop-machine.js');
  return stopNamedMachine(name, request, runRoot(), (...progress) => onDisks(name, ...progress));
}

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
