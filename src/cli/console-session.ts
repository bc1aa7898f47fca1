/**
 * A session at a machine's console: the guest's output goes to a stream, stdin goes to the guest. On a terminal some keys
 * act on the session or the machine (escape-key.ts).
 *
 * Invariants:
 * - The terminal's mode is restored however the session ends.
 * - The session is attached before the first byte of input is sent. So no answer is missed, and no older output is
 *   taken for an answer.
 * - The end of stdin ends only the input.
 * - A guest that does not read its input cannot block the session: the escape key always works, and detaching takes at
 *   most {@link INPUT_GRACE_MS}.
 * - A session does not end before a save that it began: the machine's process cancels a save whose client leaves.
 */
import type { ClientRequest, IncomingMessage } from 'node:http';
import type { Writable } from 'node:stream';
import { formatBytes, formatDuration } from '../format.js';
import { MachineClient } from '../machine/client.js';
import { type EndReport, HISTORY_HEADER, LINE_HEADER } from '../machine/control-api.js';
import { PAGE_BYTES } from '../page-stream.js';
import { LineWatch, PROMPT_IDLE_MS } from '../vmm/console/line-watch.js';
import { EscapeKey, KEYS_HELP } from './escape-key.js';
import { StandingLine } from './standing-line.js';

/** How long a session that ends waits for the guest to read its input. A guest that reads takes milliseconds. */
const INPUT_GRACE_MS = 500;

/** Typed input kept for a guest that does not read. Input from a pipe is not limited: the pipe is paused instead. */
const MAX_TYPED_BYTES = 16 << 20;

/** Past output that is asked for with `--until`, for the line that stands there. */
const STANDING_BYTES = 4096;

/** How long the machine's process may take to end after its console. */
const PROCESS_END_TIMEOUT_MS = 10_000;

export interface SessionOptions {
  /** Where the guest's output goes (default: stdout). */
  readonly output?: Writable;
  /** Ends the session at the first matching line that is written after attaching, or at one that stands there. */
  readonly until: RegExp | null;
  readonly timeoutMs: number | null;
  /** Past output to show. Undefined: all that the machine keeps. */
  readonly historyBytes: number | undefined;
  /** Prints a message: how to detach, and that input was discarded. */
  readonly say: (sentence: string) => void;
  /** Called when the session is over. The machine's process may end after that. */
  readonly onOutcome?: () => void;
}

export type SessionOutcome =
  | { readonly kind: 'detached' | 'timedOut' | 'broken' }
  /** `line` is without escape sequences. */
  | { readonly kind: 'matched'; readonly line: string }
  | { readonly kind: 'ended'; readonly end: EndReport };

/** Printed after detaching, on a line of its own. */
export const detachedSentence = (name: string): string =>
  `\nDetached; ${name} is still running. Reattach: livesnap console ${name}`;

/** Runs a session until the machine ends, the user detaches, a line matches, or the time is over. */
export async function runConsole(client: MachineClient, options: SessionOptions): Promise<SessionOutcome> {
  const processEnd = await client.directory.watchEnd();
  const { until } = options;
  const output = await client.openConsole(until === null ? options.historyBytes : STANDING_BYTES);
  const input = client.openInput();
  const { stdin } = process;
  const { output: shownOn = process.stdout } = options;
  const onTerminal = stdin.isTTY === true && (shownOn as NodeJS.WriteStream).isTTY === true;
  const restoreTerminal = () => {
    if (onTerminal && stdin.isRaw) stdin.setRawMode(false);
  };
  let finish: (outcome: SessionOutcome) => void = () => {};
  const finished = new Promise<SessionOutcome>((resolve) => {
    finish = resolve;
  });

  const standing =
    until === null
      ? null
      : new StandingLine(until, (line, bytes) => {
          shownOn.write(bytes);
          finish({ kind: 'matched', line });
        });
  const escapeKey = new EscapeKey();
  let isDiscarding = false;
  const resumeStdin = () => stdin.resume();
  let saving: Promise<void> | null = null;
  const save = () => {
    if (saving !== null) return options.say('\nA save is in progress.');
    options.say(`\nSaving ${client.directory.name} …`);
    saving = savedSentence(client)
      .then(options.say)
      .finally(() => {
        saving = null;
      });
  };
  const send = (bytes: Uint8Array) => {
    standing?.end();
    if (input.writableLength > MAX_TYPED_BYTES) isDiscarding = true;
    // A terminal is never paused, so that the escape key always works.
    else if (!input.write(bytes) && !onTerminal) {
      stdin.pause();
      input.once('drain', resumeStdin);
    }
  };
  const onInput = (typed: Buffer) => {
    if (!onTerminal) return send(typed);
    for (const taken of escapeKey.take(typed)) {
      if (taken instanceof Uint8Array) send(taken);
      else if (taken === 'save') save();
      else if (taken === 'help') options.say(`\n${KEYS_HELP}`);
      else return finish({ kind: 'detached' });
    }
  };
  const onInputEnd = () => {
    standing?.allow();
    input.end();
  };
  // Nobody types for a pipe that is still open: its input may be late.
  if (stdin.isTTY === true) standing?.allow();

  if (onTerminal) {
    options.say(`Attached to ${client.directory.name}. Ctrl-A x detaches; Ctrl-A ? shows all keys.`);
    stdin.setRawMode(true);
    process.on('exit', restoreTerminal);
  }
  stdin.on('data', onInput).once('end', onInputEnd).once('error', onInputEnd);
  const timer =
    options.timeoutMs === null
      ? undefined
      : setTimeout(() => finish({ kind: 'timedOut' }), options.timeoutMs);

  showOutput(output, until, standing, shownOn).then(finish, () => finish({ kind: 'broken' }));
  try {
    const outcome = await finished;
    if (saving !== null) await saving;
    options.onOutcome?.();
    // The console ends a little before the process. Afterwards the name must be free.
    if (outcome.kind === 'ended') {
      input.destroy();
      await processEnd(PROCESS_END_TIMEOUT_MS);
    }
    return outcome;
  } finally {
    clearTimeout(timer);
    standing?.end();
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
 * Sends the rest of the input, then closes the connection. False if the machine does not take all of it: the guest does
 * not read, and the machine's own buffer is full.
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

/** Saves the machine to its own store. Resolves to what happened; does not fail. */
async function savedSentence(client: MachineClient): Promise<string> {
  try {
    const saved = await client.save({ store: null, tags: [], then: null }, () => {});
    const { id, pages, saveMs, pauseMs } = saved;
    const paused = pauseMs > 0 ? ` (paused ${formatDuration(pauseMs)})` : '';
    return `Saved ${formatBytes(pages * PAGE_BYTES)} in ${formatDuration(saveMs)}${paused}: ${id}`;
  } catch (error) {
    return `The save failed: ${(error as Error).message}`;
  }
}

/** Copies output to a stream, at its speed. */
async function showOutput(
  output: IncomingMessage,
  until: RegExp | null,
  standing: StandingLine | null,
  shownOn: Writable,
): Promise<SessionOutcome> {
  const watch = until === null ? null : new LineWatch(until, output.headers[LINE_HEADER] === 'begun');
  let pastBytes = until === null ? 0 : Number(output.headers[HISTORY_HEADER] ?? 0);
  return new Promise((resolve, reject) => {
    let idle: NodeJS.Timeout | undefined;
    output.on('data', (part: Buffer) => {
      const bytes = part.subarray(pastBytes);
      standing?.pushPast(part.subarray(0, pastBytes));
      pastBytes -= part.length - bytes.length;
      if (bytes.length === 0) return;
      clearTimeout(idle);
      standing?.push(bytes);
      const length = watch?.push(bytes) ?? null;
      const shown = length === null ? bytes : bytes.subarray(0, length);
      if (!shownOn.write(shown)) {
        output.pause();
        shownOn.once('drain', () => output.resume());
      }
      if (length !== null) {
        resolve({ kind: 'matched', line: watch!.matched! });
        output.destroy();
      } else if (watch?.matchesUnfinished()) {
        // Reads output that has arrived by now, before the line counts as a prompt.
        idle = setTimeout(
          () =>
            setImmediate(() =>
              setImmediate(() => {
                if (watch.matchesUnfinished()) resolve({ kind: 'matched', line: watch.matched! });
              }),
            ),
          PROMPT_IDLE_MS,
        );
      }
    });
    output.once('end', () => {
      clearTimeout(idle);
      const end = MachineClient.endOf(output);
      resolve(end === null ? { kind: 'broken' } : { kind: 'ended', end });
    });
    output.once('error', reject);
  });
}
