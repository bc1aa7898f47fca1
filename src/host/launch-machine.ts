/** Starts the process of a machine under a free name. */
import { runRoot } from '../environment.js';
import { type Launched, launch } from '../machine/launch.js';
import type { LaunchRequest } from '../machine/launch-messages.js';
import { type ClaimedRunDirectory, claimFreeName, drawName, RunDirectory } from '../machine/run-directory.js';
import { WaitingProcess } from '../machine/waiting-process.js';
import type { LongCallOptions } from './call-options.js';

/** Gives a process for a machine: one that was spawned before, or a new one. */
export type TakeProcess = (kind: LaunchRequest['origin']['kind']) => Promise<WaitingProcess>;

const newProcess: TakeProcess = async (kind) => new WaitingProcess(kind);

export interface ChosenName {
  /** Null: a free name like `like`, or else a random one. */
  readonly name: string | null;
  readonly like: string | null;
}

/** Names to try: `web`, `web-2`, `web-3`, …, or random ones. */
function namesLike(like: string | null): () => string {
  let count = 0;
  return () => {
    count++;
    if (like === null) return drawName();
    return count === 1 ? like : `${like.slice(0, 58)}-${count}`;
  };
}

let lastClaim: Promise<unknown> = Promise.resolve();

/** Claims free names in the order of the calls, so that the first clone of a fork has the first name. */
function claimInTurn(root: string, nextName: () => string): Promise<ClaimedRunDirectory> {
  const claim = lastClaim.then(() => claimFreeName(root, nextName));
  lastClaim = claim.catch(() => {}); // the caller has the error
  return claim;
}

/** Resolves when the machine runs. If the signal is aborted before, the process is ended. Errors: those of `launch`. */
export async function launchMachine(
  { name, like }: ChosenName,
  request: Omit<LaunchRequest, 'root' | 'name'>,
  takeProcess: TakeProcess | undefined,
  options: LongCallOptions,
): Promise<Launched & { readonly name: string }> {
  const { signal, onProgress } = options;
  signal?.throwIfAborted();
  const root = runRoot();
  const directory =
    name !== null ? await new RunDirectory(root, name).claim() : await claimInTurn(root, namesLike(like));
  const process = await (takeProcess ?? newProcess)(request.origin.kind);
  const end = (): void => void process.kill();
  signal?.addEventListener('abort', end);
  if (signal?.aborted) end();
  try {
    const launched = await launch(directory, request, onProgress, process);
    return { ...launched, name: directory.name };
  } catch (error) {
    throw signal?.aborted ? signal.reason : error;
  } finally {
    signal?.removeEventListener('abort', end);
  }
}
