/**
 * Types the lines of a starter file into a machine's console: each one when the guest shows a prompt.
 *
 * Thread: the main thread of the process of a machine.
 *
 * Invariants:
 * - A line is typed once, whatever is saved or restored meanwhile: a snapshot has exactly the lines that were not typed.
 * - After a prompt was answered, the rest of that line of output is no prompt, since it has the echo of what was typed.
 * - Output of the guest does not block the thread, whatever the pattern is (prompt-pattern.ts).
 * - The text of a line is never logged: it may be a password.
 */
import { LineWatch } from '../vmm/console/line-watch.js';
import { PromptPattern } from './prompt-pattern.js';

const LINE_FEED = 0x0a;
/** An unfinished line counts as a prompt after this time without output. */
const PROMPT_IDLE_MS = 250;

/** The prompts of shells, and of login. */
export const DEFAULT_PROMPT = /[#$%>] $|\b(login|[Pp]assword): ?$/;

export interface StarterOptions {
  readonly lines: readonly string[];
  readonly prompt: RegExp;
  /** The output until now ends within a line that is no prompt. */
  readonly inLine: boolean;
  /** Sends input to the guest. */
  readonly type: (bytes: Uint8Array) => void;
  readonly log: (sentence: string) => void;
}

export class Starter {
  readonly #options: StarterOptions;
  readonly #prompt: PromptPattern;
  #typed = 0;
  #watch: LineWatch;
  #inLine: boolean;
  #idle: NodeJS.Timeout | undefined;

  constructor(options: StarterOptions) {
    this.#options = options;
    this.#prompt = new PromptPattern(options.prompt, () =>
      options.log(
        'the starter file is not typed any further: the pattern of its prompt takes too long on lines of the guest',
      ),
    );
    this.#inLine = options.inLine;
    this.#watch = this.#newWatch();
  }

  /** The lines that were not typed yet. */
  get pending(): readonly string[] {
    return this.#options.lines.slice(this.#typed);
  }

  /** The output so far ends in the line in which the last line was typed. */
  get inLine(): boolean {
    return this.#inLine;
  }

  /** Takes output of the guest. */
  push(bytes: Uint8Array): void {
    clearTimeout(this.#idle);
    let rest = bytes;
    while (rest.length > 0 && this.#typed < this.#options.lines.length) {
      const length = this.#watch.push(rest);
      if (rest.subarray(0, length ?? undefined).includes(LINE_FEED)) this.#inLine = false;
      if (length === null) break;
      rest = rest.subarray(length);
      this.#typeNext(false);
    }
    if (this.#typed < this.#options.lines.length && this.#watch.matchesUnfinished())
      this.#idle = setTimeout(() => this.#typeNext(true), PROMPT_IDLE_MS).unref();
  }

  /** The machine has ended. */
  end(): void {
    clearTimeout(this.#idle);
    this.#typed = this.#options.lines.length;
  }

  #typeNext(inLine: boolean): void {
    const { lines, type, log } = this.#options;
    const line = lines[this.#typed++]!;
    this.#inLine = inLine;
    this.#watch = this.#newWatch();
    type(Buffer.from(`${line}\r`));
    log(`typed line ${this.#typed} of ${lines.length} of the starter file`);
  }

  #newWatch(): LineWatch {
    return new LineWatch(this.#prompt, this.#inLine);
  }
}
