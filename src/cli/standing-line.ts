/**
 * The unfinished line that stands on a console when a session attaches, such as the prompt of a guest that has booted.
 * Without it, `--until` would wait forever for a prompt that is there already.
 *
 * Invariants:
 * - It counts only while nothing is typed: a prompt before the input is not the answer to it.
 * - It counts after a second without output, as any prompt, and ends with its line.
 */
import { LineWatch, PROMPT_IDLE_MS } from '../vmm/console/line-watch.js';

const LINE_FEED = 0x0a;
const NOTHING = Buffer.alloc(0);

export class StandingLine {
  /** The part of the line that was written before attaching, which nobody has been shown. */
  #past = NOTHING;
  /** The part that was written since. */
  #more = NOTHING;
  #state: 'waiting' | 'allowed' | 'ended' = 'waiting';
  #timer: NodeJS.Timeout | undefined;

  /**
   * Calls `onMatch` at most once: with the line without escape sequences, and with its bytes that were not shown yet, if
   * they can still be shown in order.
   */
  constructor(
    private readonly pattern: Pick<RegExp, 'test'>,
    private readonly onMatch: (line: string, unshown: Uint8Array) => void,
  ) {}

  /** Output from before the session attached. */
  pushPast(bytes: Uint8Array): void {
    const from = bytes.lastIndexOf(LINE_FEED) + 1;
    this.#past = Buffer.concat([from > 0 ? NOTHING : this.#past, bytes.subarray(from)]);
    this.#look();
  }

  /** Output from after that. */
  push(bytes: Uint8Array): void {
    if (bytes.includes(LINE_FEED)) this.end();
    this.#more = Buffer.concat([this.#more, bytes]);
    this.#look();
  }

  /** Lets the line count: a person would type, or nothing will be typed. */
  allow(): void {
    if (this.#state === 'waiting') this.#state = 'allowed';
    this.#look();
  }

  /** The line does not count from now on. */
  end(): void {
    this.#state = 'ended';
    clearTimeout(this.#timer);
  }

  #look(): void {
    clearTimeout(this.#timer);
    // A line that began after attaching is watched by the session itself.
    if (this.#state !== 'allowed' || this.#past.length === 0) return;
    const watch = new LineWatch(this.pattern);
    watch.push(Buffer.concat([this.#past, this.#more]));
    if (!watch.matchesUnfinished()) return;
    this.#timer = setTimeout(() => {
      this.end();
      this.onMatch(watch.matched!, this.#more.length === 0 ? this.#past : NOTHING);
    }, PROMPT_IDLE_MS);
  }
}
