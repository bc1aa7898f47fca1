/**
 * A console joined from this process: the guest's output to stdout, stdin to the guest.
 *
 * Invariants: the terminal is as it was when the session is over, however it ends; the viewer has joined before
 * the first byte of input is sent, so that an answer cannot be missed and nothing older taken for it; the end of
 * stdin ends input only.
 */
import type { IncomingMessage } from 'node:http';
import { type EndReport, LINE_HEADER } from '../server/api.js';
import { MachineClient } from '../server/client.js';
import { EscapeKey } from './escape-key.js';
import { LineWatch } from './line-watch.js';

/** How long output must stand still for a line without an end to be matched. */
const PROMPT_STILL_MS = 1000;

/** How long the process may take to end after its console has. */
export const PROCESS_END_TIMEOUT_MS = 10_000;

export interface SessionOptions {
  /** Ends the session at the first line written after joining that matches. */
  readonly until: RegExp | null;
  readonly timeoutMs: number | null;
  /** Past output to show; undefined: what the machine keeps. */
  readonly historyBytes: number | undefined;
  /** For a sentence on how to leave, said when a terminal has joined. */
  readonly say: (sentence: string) => void;
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
  const onInput = (typed: Buffer) => {
    const { bytes, leave } = onTerminal ? escapeKey.take(typed) : { bytes: typed, leave: false };
    if (bytes.length > 0 && !input.write(bytes)) {
      stdin.pause();
      input.once('drain', () => stdin.resume());
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
    // The console ends a little before the process: whoever is told of the end finds the name free.
    if (outcome.kind === 'ended') {
      input.destroy();
      await processEnd(PROCESS_END_TIMEOUT_MS);
    }
    return outcome;
  } finally {
    clearTimeout(timer);
    stdin.off('data', onInput).off('end', onInputEnd).off('error', onInputEnd).pause();
    restoreTerminal();
    process.off('exit', restoreTerminal);
    output.destroy();
    await endInput(input);
  }
}

/** Lets what was typed reach the machine before the connection is given up. */
function endInput(input: ReturnType<MachineClient['openInput']>): Promise<void> {
  return new Promise((resolve) => {
    if (input.destroyed) resolve();
    input.once('close', resolve);
    input.once('error', () => resolve());
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
