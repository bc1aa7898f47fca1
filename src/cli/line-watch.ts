/**
 * Watches a console's output for a line that matches. Lines end with a line feed; a carriage return before it is
 * not part of the line. A line that is not finished (a prompt) is matched only when asked, for a guest may be
 * interrupted in the middle of one.
 *
 * Invariant: memory is bounded whatever the guest writes: of a longer line only the last bytes are matched.
 */

const LONGEST_LINE_BYTES = 64 * 1024;
const LINE_FEED = 0x0a;

export class LineWatch {
  #line = Buffer.alloc(0);

  /** `begun`: the first bytes end a line that began before, which cannot match. */
  constructor(
    private readonly pattern: RegExp,
    private begun: boolean = false,
  ) {}

  /** How many of the bytes lead up to the end of the first line that matches; null when none does. */
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

  /** Whether the line that has been begun matches as it stands. */
  matchesUnfinished(): boolean {
    return this.#line.length > 0 && this.#matches();
  }

  #append(bytes: Uint8Array): void {
    this.#line = Buffer.concat([this.#line, bytes]).subarray(-LONGEST_LINE_BYTES);
  }

  #matches(): boolean {
    return !this.begun && this.pattern.test(this.#line.toString('utf8').replace(/\r$/, ''));
  }
}
