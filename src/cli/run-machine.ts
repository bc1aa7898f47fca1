/** Shows a machine that `start` or `restore` starts: attaches to its console unless --detach is given. */
import { LivesnapError } from '../errors.js';
import { formatDuration } from '../format.js';
import type { Host } from '../host/host.js';
import type { Machine } from '../host/machine.js';
import type { MachineClient } from '../machine/client.js';
import type { EndReport } from '../machine/control-api.js';
import type { Progress } from '../page-stream.js';
import { detachedSentence, runConsole } from './console-session.js';
import { takeProcess } from './early-process.js';
import { INTERRUPTIONS } from './interruption.js';
import type { Output } from './output.js';

export interface RunOptions {
  /** What progress is shown of; null: none is. */
  readonly shown: string | null;
  readonly detach: boolean;
  readonly storeDir: string;
  readonly output: Output;
}

/** Resolves to the exit status: in the foreground when the machine ends, else when it runs. */
export async function runMachine(
  { shown, detach, storeDir, output }: RunOptions,
  begin: (host: Host, progress?: Progress) => Promise<Machine>,
): Promise<number> {
  const { Host } = await import('../host/host.js');
  const host = new Host(storeDir, takeProcess);
  const startedMs = performance.now();
  const machine =
    shown === null
      ? await begin(host)
      : await output.withProgress(shown, (progress) => begin(host, progress));
  const readyMs = Math.round(performance.now() - startedMs);
  const { name, client } = machine;
  const { id, labels, pid, memoryBytes, cpus, startedAt, endsAt, snapshot, notices } = machine.about;
  for (const notice of notices) output.note(notice);
  const result = { id, name, labels, pid, readyMs, memoryBytes, cpus, startedAt, endsAt, snapshot };
  if (detach) {
    machine.detach();
    output.result(
      result,
      () => name,
      () => name,
    );
    output.remark(`Running after ${formatDuration(readyMs)}. Attach: livesnap console ${name}`);
    return 0;
  }

  let isStopping = false;
  const stop = () => {
    // The second signal does not wait for the guest.
    client.stop({ force: isStopping }).catch(() => {});
    isStopping = true;
  };
  // On a terminal in raw mode Ctrl-C is a byte for the guest. SIGINT comes from a pipeline or from kill.
  for (const signal of INTERRUPTIONS) process.on(signal, stop);
  if (output.json) {
    output.result(result, () => '');
    // The console is not shown: stdout is for the result.
    return statusOf(await machine.wait(), client);
  }
  const outcome = await runConsole(client, {
    until: null,
    timeoutMs: null,
    historyBytes: undefined,
    say: (sentence) => output.say(sentence),
    onOutcome: () => machine.detach(),
  });
  if (outcome.kind === 'ended') return statusOf(outcome.end, client);
  if (outcome.kind === 'broken') return statusOf(null, client);
  output.say(detachedSentence(name));
  return 0;
}

/** The exit status for the end of a machine. Null: the connection was lost, because the process died. */
async function statusOf(end: EndReport | null, { directory }: MachineClient): Promise<number> {
  if (end === null) {
    const { goneError } = await import('../machine/client.js');
    throw await goneError(directory);
  }
  if (end.error !== null) throw LivesnapError.fromJSON(end.error);
  return 0;
}
