/**
 * The process of the machine that a command line is about to start. It is spawned before the command line is parsed, and
 * loads its code meanwhile.
 *
 * Invariants:
 * - A process that no machine needs has ended before the command does.
 * - Other command lines do not load Node's code for child processes, which takes 6 ms.
 */
import type { WaitingProcess } from '../machine/waiting-process.js';
import { asksForHelp, asksForVersion, firstWord } from './arguments.js';

let waiting: WaitingProcess | null = null;

async function newProcess(kind: 'start' | 'restore'): Promise<WaitingProcess> {
  const { WaitingProcess } = await import('../machine/waiting-process.js');
  return new WaitingProcess(kind);
}

/** Spawns the process if the arguments are those of a verb that starts a machine. */
export async function spawnEarly(args: readonly string[]): Promise<void> {
  const verb = firstWord(args);
  if (verb !== 'start' && verb !== 'restore' && verb !== 'fork') return;
  if (asksForHelp(args) || asksForVersion(args)) return;
  waiting = await newProcess(verb === 'start' ? 'start' : 'restore');
}

/** The process, for a machine: the one that was spawned, or else a new one. */
export async function takeProcess(kind: 'start' | 'restore'): Promise<WaitingProcess> {
  const process = waiting ?? (await newProcess(kind));
  waiting = null;
  return process;
}

/** Ends the process if no machine has taken it. */
export async function dropProcess(): Promise<void> {
  await waiting?.kill();
  waiting = null;
}
