/**
 * The console of a machine: the guest's output as a stream, and input for the guest.
 *
 * Invariants:
 * - It is attached before `console()` resolves, so no answer to later input is missed.
 * - Output that nobody reads is not collected: the machine's process keeps the latest part of it (console-hub.ts).
 * - One reader at a time: `waitFor` and iteration take the output from each other.
 */
import type { ClientRequest, IncomingMessage } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { LivesnapError } from '../errors.js';
import { MachineClient } from '../machine/client.js';
import { type EndReport, LINE_HEADER } from '../machine/control-api.js';
import { unlessAborted } from '../unless-aborted.js';
import { LineWatch, PROMPT_IDLE_MS } from '../vmm/console/line-watch.js';
import { requireTimeout } from './arguments.js';
import type { CallOptions } from './call-options.js';

/** The longest timer. */
const MAX_WAIT_MS = 2 ** 31 - 1;

export interface WaitForOptions extends CallOptions {
  /** Fails with TIMED_OUT after this time. Default: it waits until the machine ends. */
  readonly timeoutMs?: number | undefined;
}

export interface ConsoleOptions extends CallOptions {
  /** How much past output comes first, at most 1 MiB. Default: none. */
  readonly historyBytes?: number | undefined;
}

export class Console implements AsyncIterable<Uint8Array>, AsyncDisposable {
  readonly #client: MachineClient;
  readonly #output: IncomingMessage;
  readonly #parts: AsyncIterator<Buffer>;
  #input: ClientRequest | null = null;
  /** What was read, and came after the line that the last `waitFor` found. */
  #rest: Buffer = Buffer.alloc(0);
  /** The next part, asked for by a `waitFor` that has given up since. */
  #asked: Promise<IteratorResult<Buffer>> | null = null;
  /** The output that is read next begins within a line. */
  #isWithinLine: boolean;

  private constructor(client: MachineClient, output: IncomingMessage) {
    this.#client = client;
    this.#output = output;
    this.#parts = output[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    this.#isWithinLine = output.headers[LINE_HEADER] === 'begun';
  }

  static async open(client: MachineClient, { historyBytes = 0, signal }: ConsoleOptions): Promise<Console> {
    signal?.throwIfAborted();
    return new Console(client, await client.openConsole(historyBytes));
  }

  /** Types into the console. Resolves when the machine's process has the input; a guest that does not read delays it. */
  async write(input: string | Uint8Array): Promise<void> {
    if (typeof input !== 'string' && !(input instanceof Uint8Array))
      throw new LivesnapError('USAGE', 'the input of the console is neither a text nor bytes', {
        hint: "Example: write('ls\\n').",
      });
    this.#input ??= this.#client.openInput();
    const sent = this.#input;
    if (sent.destroyed || sent.writableEnded) throw await this.#client.goneError();
    await new Promise<void>((resolve, reject) => {
      sent.write(input, (error) => {
        if (error) reject(new LivesnapError('MACHINE_GONE', 'the console was closed', { cause: error }));
        else resolve();
      });
    });
  }

  /**
   * Resolves to the next line that matches, without escape sequences and line end. Lines that begin before the console
   * was opened do not count. A prompt counts after a second without output. Errors: TIMED_OUT, MACHINE_GONE.
   */
  async waitFor(pattern: RegExp, { timeoutMs, signal }: WaitForOptions = {}): Promise<string> {
    signal?.throwIfAborted();
    if (!(pattern instanceof RegExp))
      throw new LivesnapError('USAGE', 'the pattern of waitFor is not a regular expression', {
        hint: 'Example: waitFor(/^OK/, { timeoutMs: 10_000 }).',
      });
    if (timeoutMs !== undefined) requireTimeout(timeoutMs, Number.POSITIVE_INFINITY);
    const watch = new LineWatch(pattern, this.#isWithinLine);
    const deadlineMs = timeoutMs === undefined ? Number.POSITIVE_INFINITY : performance.now() + timeoutMs;
    for (;;) {
      const hasPrompt = watch.matchesUnfinished();
      const waitMs = Math.min(
        deadlineMs - performance.now(),
        hasPrompt ? PROMPT_IDLE_MS : Number.POSITIVE_INFINITY,
      );
      const part = await this.#next(waitMs, signal);
      if (part === 'timedOut') {
        if (hasPrompt && performance.now() < deadlineMs) {
          this.#isWithinLine = true;
          return watch.matched!;
        }
        if (performance.now() < deadlineMs) continue;
        throw new LivesnapError('TIMED_OUT', `timed out waiting for ${pattern} on ${this.#name}'s console`);
      }
      if (part === null)
        throw new LivesnapError(
          'MACHINE_GONE',
          `the machine ${this.#name} ended before a line matched ${pattern}`,
        );
      const length = watch.push(part);
      if (length === null) continue;
      this.#rest = part.subarray(length);
      this.#isWithinLine = false;
      return watch.matched!;
    }
  }

  get #name(): string {
    return this.#client.directory.name;
  }

  /** The next part of the output; null at the end of the machine. Errors: MACHINE_GONE (its process has died). */
  async #next(waitMs: number, signal?: AbortSignal): Promise<Buffer | 'timedOut' | null> {
    if (this.#rest.length > 0) {
      const rest = this.#rest;
      this.#rest = Buffer.alloc(0);
      return rest;
    }
    this.#asked ??= this.#parts.next();
    const asked = this.#asked.catch(async () => {
      throw await this.#client.goneError();
    });
    const found = await unlessAborted(signal, within(asked, waitMs));
    if (found === 'timedOut') return found;
    this.#asked = null;
    return found.done ? null : found.value;
  }

  /** The output from here on, until the machine ends. Errors: MACHINE_GONE (its process has died). */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    for (;;) {
      const part = await this.#next(Number.POSITIVE_INFINITY);
      if (part === null) return;
      if (part !== 'timedOut') yield part;
    }
  }

  /** How the machine ended; null before the output has been read to its end, or if its process died. */
  get end(): EndReport | null {
    return MachineClient.endOf(this.#output);
  }

  /** Detaches. The machine goes on. */
  async close(): Promise<void> {
    this.#output.destroy();
    this.#input?.end();
    this.#input = null;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Settles as `work` does, or resolves to `timedOut` if that takes longer. */
async function within<T>(work: Promise<T>, waitMs: number): Promise<T | 'timedOut'> {
  if (waitMs === Number.POSITIVE_INFINITY) return work;
  const noTimer = new AbortController();
  const timedOut = sleep(Math.min(Math.max(waitMs, 0), MAX_WAIT_MS), 'timedOut' as const, noTimer);
  timedOut.catch(() => {}); // the timer is not needed any more
  try {
    return await Promise.race([work, timedOut]);
  } finally {
    noTimer.abort();
  }
}
