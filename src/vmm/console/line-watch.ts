/**
 * Searches a console's output for a line that matches. A line ends with a line feed; a carriage return before it is not
 * part of the line. A line matches with or without its escape sequences, such as colours. An unfinished line, such as a
 * prompt, is matched only on request, since it may grow.
 *
 * Invariant: memory is bounded. Only the last bytes of a long line are kept and matched.
 */

import { stripVTControlCharacters } from 'node:util';

/** An unfinished line, such as a prompt, is matched after this time without output. */
export const PROMPT_IDLE_MS = 1000;

const MAX_LINE_BYTES = 64 * 1024;
const LINE_FEED = 0x0a;

export class LineWatch {
  #line = Buffer.alloc(0);
  /** The last line that matched, without escape sequences. */
  matched: string | null = null;

  /** `begun`: the output starts within a line. That line cannot match. */
  constructor(
    private readonly pattern: Pick<RegExp, 'test'>,
    private begun: boolean = false,
  ) {}

  /** Returns the number of bytes up to the end of the first line that matches. Null: no line matches. */
  push(bytes: Uint8Array): number | null {
    let from = 0;
    for (let end = bytes.indexOf(LINE_FEED); end >= 0; end = bytes.indexOf(LINE_FEED, from)) {
      this.#append(bytes.subarray(from, end));
      const matches = this.#matches();
      this.#line = Buffer.alloc(0);
      this.begun = false;
      from = end + 1;
      if (matches) return from;
    }
    this.#append(bytes.subarray(from));
    return null;
  }

  /** Whether the unfinished line matches. */
  matchesUnfinished(): boolean {
    return this.#line.length > 0 && this.#matches();
  }

  #append(bytes: Uint8Array): void {
    this.#line = Buffer.concat([this.#line, bytes]).subarray(-MAX_LINE_BYTES);
  }

  #matches(): boolean {
    if (this.begun) return false;
    const line = this.#line.toString('utf8').replace(/\r$/, '');
    const plain = stripVTControlCharacters(line);
    if (!this.pattern.test(line) && !this.pattern.test(plain)) return false;
    this.matched = plain;
    return true;
  }
}
