/**
 * The process of the machine that a command line is about to start. It is spawned before the command line is parsed, and
 * loads its code meanwhile.
 *
 * Invariant: a process that no machine needs has ended before the command does.
 */
import { WaitingProcess } from '../server/waiting-process.js';
import { firstWord } from './arguments.js';

let waiting: WaitingProcess | null = null;

/** Spawns the process if the arguments are those of a verb that starts a machine. */
export function spawnEarly(args: readonly string[]): void {
  const verb = firstWord(args);
  if (verb !== 'start' && verb !== 'restore') return;
  const end = args.indexOf('--');
  if (args.slice(0, end < 0 ? undefined : end).some((arg) => arg === '--help' || arg === '--version')) return;
  waiting = new WaitingProcess(verb);
}

/** The process, for a machine: the one that was spawned, or else a new one. */
export function takeProcess(kind: 'start' | 'restore'): WaitingProcess {
  const process = waiting ?? new WaitingProcess(kind);
  waiting = null;
  return process;
}

/** Ends the process if no machine has taken it. */
export async function dropProcess(): Promise<void> {
  await waiting?.kill();
  waiting = null;
}
