/** Stops a machine, and waits for the end of its process; or removes what a dead machine has left. */
import { setTimeout as sleep } from 'node:timers/promises';
import { LivesnapError } from '../errors.js';
import { MachineClient, noSuchMachine } from '../machine/client.js';
import type { StopRequest, StopResult } from '../machine/control-api.js';
import { RunDirectory } from '../machine/run-directory.js';
import type { Progress } from '../page-stream.js';

/** How long the machine's process may take to end, after the guest's time. */
const END_TIMEOUT_MS = 30_000;
/** How long a process that saves disks may take to tell that it lives. */
const ANSWER_TIMEOUT_MS = 3000;
/** How long to wait before a process that does not listen yet is asked again. */
const ASK_AGAIN_MS = 50;
/** How often to look how far the disks are saved. */
const LOOK_AT_DISKS_MS = 500;

/** `gone`: its process had died before. */
export type Stopped = StopResult | { readonly name: string; readonly state: 'gone' };

/** A machine of this name, also a dead one. Errors: USAGE, NO_SUCH_MACHINE, and as of {@link stopMachine}. */
export async function stopNamedMachine(
  name: string,
  request: StopRequest,
  root: string,
  onDisks?: Progress,
): Promise<Stopped> {
  const directory = new RunDirectory(root, name);
  if ((await directory.look()) === 'absent') throw noSuchMachine(name);
  return stopMachine(new MachineClient(directory), request, onDisks);
}

const ENDED = { state: 'stopped', how: 'ended', reason: null, lostSaves: 0 } as const;

/**
 * Resolves when the process has ended. `onDisks` is called while its disks are saved. Errors: TIMED_OUT, and those of the
 * API.
 */
export async function stopMachine(
  client: MachineClient,
  request: StopRequest,
  onDisks?: Progress,
): Promise<Stopped> {
  const done = new AbortController();
  if (onDisks !== undefined) void watchDisks(client, onDisks, done.signal);
  try {
    return await end(client, request);
  } finally {
    done.abort();
  }
}

/** A machine that does not answer is asked again: only its end counts. */
async function watchDisks(client: MachineClient, onDisks: Progress, done: AbortSignal): Promise<void> {
  for (;;) {
    await sleep(LOOK_AT_DISKS_MS, undefined, { ref: false });
    if (done.aborted) return;
    const diskSave = await client.describe(ANSWER_TIMEOUT_MS).then(
      (machine) => machine.diskSave,
      () => null,
    );
    if (diskSave !== null && !done.aborted) onDisks(diskSave.doneBytes, diskSave.totalBytes);
  }
}

async function end(client: MachineClient, request: StopRequest): Promise<Stopped> {
  const { directory } = client;
  const { name } = directory;
  const found = await directory.look();
  if (found === 'absent' || !(await client.isOfRecord())) return { name, ...ENDED };
  if (found === 'dead') {
    const claimed = await directory.claim();
    await claimed.remove();
    claimed.release();
    return { name, state: 'gone' };
  }
  const ended = await directory.watchEnd();
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
  if (hasEnded) return answer?.result ?? { name, ...ENDED };
  if (answer?.error) throw answer.error;
  const pid = (await directory.readRecord())?.pid;
  throw new LivesnapError('TIMED_OUT', `timed out: the process of the machine ${name} is still running`, {
    ...(pid === undefined ? {} : { hint: `To kill it: kill -9 ${pid}` }),
  });
}
