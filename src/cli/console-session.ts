/**
 * A console joined from this process: the guest's output to stdout, stdin to the guest.
 *
 * Invariants:
 * - The terminal is as it was when the session is over, however it ends.
 * - The viewer has joined before the first byte of input is sent, so that an answer cannot be missed and nothing older
 *   taken for it.
 * - The end of stdin ends input only.
 * - A guest that does not read its input cannot hold the session: the escape key is always seen, and whoever leaves
 *   waits no longer than {@link INPUT_GRACE_MS}.
 */
import type { ClientRequest, IncomingMessage } from 'node:http';
import { MachineClient } from '../server/client.js';
import { type EndReport, LINE_HEADER } from '../server/control-api.js';
import { EscapeKey } from './escape-key.js';
import { LineWatch } from './line-watch.js';

/** How long output must stand still for a line without an end to be matched. */
const PROMPT_STILL_MS = 1000;

/** How long a session that is over waits for its input to be taken. Where the guest reads, that is milliseconds. */
const INPUT_GRACE_MS = 500;

/** The most that is kept of what is typed at a guest that does not read. A pipe is not read any further instead. */
const MAX_TYPED_BYTES = 16 << 20;

/** How long the process may take to end after its console has. */
export const PROCESS_END_TIMEOUT_MS = 10_000;

export interface SessionOptions {
  /** Ends the session at the first line written after joining that matches. */
  readonly until: RegExp | null;
  readonly timeoutMs: number | null;
  /** Past output to show; undefined: what the machine keeps. */
  readonly historyBytes: number | undefined;
  /** For a sentence on how to leave, said when a terminal has joined, and for one on input that was discarded. */
  readonly say: (sentence: string) => void;
  /** Called when nothing more is wanted of the console; the machine's process may end then. */
  readonly onOutcome?: () => void;
}

export type SessionOutcome =
  | { readonly kind: 'left' | 'matched' | 'timedOut' | 'broken' }
  | { readonly kind: 'ended'; readonly end: EndReport };

/** Joins the machine's console until it ends, is left, or has shown what was waited for. */
export async function runConsole(client: MachineClient, options: SessionOptions): Promise<SessionOutcome> {
  const processEnd = await client.directory.watchEnd();
  const output = await client.openConsole(options.historyBytes);
  const input = client.openInput();
  const { stdin, stdout } = process;
  const onTerminal = stdin.isTTY === true && stdout.isTTY === true;
  const restoreTerminal = () => {
    if (onTerminal && stdin.isRaw) stdin.setRawMode(false);
  };
  let finish: (outcome: SessionOutcome) => void = () => {};
  const finished = new Promise<SessionOutcome>((resolve) => {
    finish = resolve;
  });

  const escapeKey = new EscapeKey();
  let isDiscarding = false;
  const resumeStdin = () => stdin.resume();
  const onInput = (typed: Buffer) => {
    const { bytes, leave } = onTerminal ? escapeKey.take(typed) : { bytes: typed, leave: false };
    if (bytes.length > 0) {
      if (input.writableLength > MAX_TYPED_BYTES) isDiscarding = true;
      // A terminal is read on, or the escape key would not be seen.
      else if (!input.write(bytes) && !onTerminal) {
        stdin.pause();
        input.once('drain', resumeStdin);
      }
    }
    if (leave) finish({ kind: 'left' });
  };
  const onInputEnd = () => input.end();

  if (onTerminal) {
    options.say(
      `Joined ${client.directory.name}. Ctrl-A x leaves it running; Ctrl-A Ctrl-A sends one Ctrl-A.`,
    );
    stdin.setRawMode(true);
    process.on('exit', restoreTerminal);
  }
  stdin.on('data', onInput).once('end', onInputEnd).once('error', onInputEnd);
  const timer =
    options.timeoutMs === null
      ? undefined
      : setTimeout(() => finish({ kind: 'timedOut' }), options.timeoutMs);

  showOutput(output, options.until).then(finish, () => finish({ kind: 'broken' }));
  try {
    const outcome = await finished;
    options.onOutcome?.();
    // The console ends a little before the process: whoever is told of the end finds the name free.
    if (outcome.kind === 'ended') {
      input.destroy();
      await processEnd(PROCESS_END_TIMEOUT_MS);
    }
    return outcome;
  } finally {
    clearTimeout(timer);
    stdin.off('data', onInput).off('end', onInputEnd).off('error', onInputEnd).pause();
    input.off('drain', resumeStdin);
    restoreTerminal();
    process.off('exit', restoreTerminal);
    output.destroy();
    const hasEnded = input.destroyed;
    const wasTaken = await endInput(input);
    if (!hasEnded && (!wasTaken || isDiscarding))
      options.say('Input that the guest did not read in time was discarded.');
  }
}

/**
 * Lets what was typed reach the machine, then gives the connection up. False when the machine does not take all of it:
 * its guest does not read, and as much waits for the guest as may.
 */
function endInput(input: ClientRequest): Promise<boolean> {
  return new Promise((resolve) => {
    if (input.destroyed) {
      resolve(true);
      return;
    }
    const timer = setTimeout(() => {
      resolve(false);
      input.destroy();
    }, INPUT_GRACE_MS);
    const done = () => {
      clearTimeout(timer);
      resolve(true);
    };
    input.once('close', done);
    input.once('error', done);
    input.end();
  });
}

/** Copies output to stdout, no faster than it is taken. */
async function showOutput(output: IncomingMessage, until: RegExp | null): Promise<SessionOutcome> {
  const watch = until === null ? null : new LineWatch(until, output.headers[LINE_HEADER] === 'begun');
  const { stdout } = process;
  return new Promise((resolve, reject) => {
    let still: NodeJS.Timeout | undefined;
    output.on('data', (bytes: Buffer) => {
      clearTimeout(still);
      const length = watch?.push(bytes) ?? null;
      const shown = length === null ? bytes : bytes.subarray(0, length);
      if (!stdout.write(shown)) {
        output.pause();
        stdout.once('drain', () => output.resume());
      }
      if (length !== null) {
        resolve({ kind: 'matched' });
        output.destroy();
      } else if (watch?.matchesUnfinished()) {
        // Output that has arrived meanwhile is read before the line is taken for a prompt.
        still = setTimeout(
          () =>
            setImmediate(() =>
              setImmediate(() => {
                if (watch.matchesUnfinished()) resolve({ kind: 'matched' });
              }),
            ),
          PROMPT_STILL_MS,
        );
      }
    });
    output.once('end', () => {
      clearTimeout(still);
      const end = MachineClient.endOf(output);
      resolve(end === null ? { kind: 'broken' } : { kind: 'ended', end });
    });
    output.once('error', reject);
  });
}
