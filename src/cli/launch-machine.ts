/** Starts the process of a machine, for `start` and `restore`, and attaches to its console unless --detach is given. */
import { runRoot } from '../environment.js';
import { LivesnapError } from '../errors.js';
import type { Progress } from '../page-stream.js';
import type { EndReport } from '../server/control-api.js';
import type { LaunchRequest } from '../server/launch-messages.js';
import { detachedSentence, PROCESS_END_TIMEOUT_MS, runConsole } from './console-session.js';
import { takeProcess } from './early-process.js';
import { formatDuration } from './format.js';
import type { Output } from './output.js';

export interface LaunchOptions {
  /** Null: a free name is chosen, like `like` or else a random one. */
  readonly name: string | null;
  readonly like: string | null;
  readonly detach: boolean;
  readonly port: number | null;
  readonly storeDir: string;
  readonly overlayDir: string | null;
  readonly starter: LaunchRequest['starter'];
  readonly origin: LaunchRequest['origin'];
  readonly output: Output;
}

/** Names to try: `web`, `web-2`, `web-3`, …, or random ones. */
function namesLike(like: string | null, draw: () => string): () => string {
  let count = 0;
  return () => {
    count++;
    if (like === null) return draw();
    return count === 1 ? like : `${like.slice(0, 58)}-${count}`;
  };
}

/** Resolves to the exit status: in the foreground when the machine ends, else when it runs. */
export async function launchMachine(options: LaunchOptions): Promise<number> {
  const { output, origin, port, storeDir, overlayDir, starter } = options;
  const { claimFreeName, drawName, RunDirectory } = await import('../server/run-directory.js');
  const { launch } = await import('../server/launch.js');
  const { MachineClient } = await import('../server/client.js');

  const startedMs = performance.now();
  const root = runRoot();
  const directory =
    options.name !== null
      ? await new RunDirectory(root, options.name).claim()
      : await claimFreeName(root, namesLike(options.like, drawName));
  const { name } = directory;
  const begin = async (progress?: Progress) => {
    const request = { storeDir, port, overlayDir, starter, origin };
    return launch(directory, request, progress, await takeProcess(origin.kind));
  };
  const { machine, letGo } =
    origin.kind === 'start' ? await begin() : await output.withProgress(`restoring ${name}`, begin);
  const readyMs = Math.round(performance.now() - startedMs);
  for (const notice of machine.notices) output.say(`note: ${notice}`);

  const { pid, memoryBytes, cpus, startedAt, snapshot } = machine;
  const result = { name, pid, readyMs, memoryBytes, cpus, startedAt, snapshot };
  if (options.detach) {
    letGo();
    output.result(
      result,
      () => name,
      () => name,
    );
    output.remark(`Running after ${formatDuration(readyMs)}. Attach: livesnap console ${name}`);
    return 0;
  }

  const client = new MachineClient(directory);
  let isStopping = false;
  const stop = () => {
    // The second signal does not wait for the guest.
    client.stop({ force: isStopping }).catch(() => {});
    isStopping = true;
  };
  // On a terminal in raw mode Ctrl-C is a byte for the guest. SIGINT comes from a pipeline or from kill.
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT'] as const) process.on(signal, stop);
  if (output.json) {
    output.result(result, () => '');
    return statusOf(await waitForEnd(client, letGo), client);
  }
  const outcome = await runConsole(client, {
    until: null,
    timeoutMs: null,
    historyBytes: undefined,
    say: (sentence) => output.say(sentence),
    onOutcome: letGo,
  });
  if (outcome.kind === 'ended') return statusOf(outcome.end, client);
  if (outcome.kind === 'broken') return statusOf(null, client);
  output.say(detachedSentence(name));
  return 0;
}

/** Waits for the end of the machine without showing its console: with --json, stdout is for the result. */
async function waitForEnd(
  client: import('../server/client.js').MachineClient,
  letGo: () => void,
): Promise<EndReport | null> {
  const { MachineClient } = await import('../server/client.js');
  const processEnd = await client.directory.watchEnd();
  const console = await client.openConsole(0);
  const end = await new Promise<EndReport | null>((resolve) => {
    console.resume();
    console.once('end', () => resolve(MachineClient.endOf(console)));
    console.once('error', () => resolve(null));
  });
  letGo();
  await processEnd(PROCESS_END_TIMEOUT_MS);
  return end;
}

/** The exit status for the end of a machine. Null: the connection was lost, because the process died. */
async function statusOf(
  end: EndReport | null,
  { directory }: import('../server/client.js').MachineClient,
): Promise<number> {
  if (end === null) {
    const { goneError } = await import('../server/client.js');
    throw await goneError(directory);
  }
  if (end.error !== null) throw LivesnapError.fromJSON(end.error);
  return 0;
}
