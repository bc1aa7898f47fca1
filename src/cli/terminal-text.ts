/**
 * Output of a guest for a terminal: text without escape sequences and control characters, since a guest, or whoever made a
 * snapshot, may have written anything.
 */
import { stripVTControlCharacters } from 'node:util';

/** A sequence that is not complete after this many characters is none. */
const MAX_SEQUENCE = 64;
/** What follows the escape in a whole sequence: of a control function (ECMA-48, 5.4), or one character. */
const REST_OF_SEQUENCE = /^(?:\[[0-?]*[ -/]*[@-~]|[^[\]])/;
/** All controls but tab and line feed. A carriage return is left out: with a line feed it does nothing. */
const CONTROLS = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;
const KEPT = new Set(['\t', '\n']);

export class TerminalText {
  readonly #decoder = new TextDecoder('utf-8');
  #held = '';

  /** What can be shown of the output so far. The rest, part of a character or of a sequence, comes with the next one. */
  next(bytes: Uint8Array): string {
    const text = this.#held + this.#decoder.decode(bytes, { stream: true });
    const at = text.lastIndexOf('\x1b');
    // What follows the last escape may be half of a sequence: it is held until a letter ends it.
    const isHalf = at >= 0 && text.length - at < MAX_SEQUENCE && !REST_OF_SEQUENCE.test(text.slice(at + 1));
    this.#held = isHalf ? text.slice(at) : '';
    return shown(isHalf ? text.slice(0, at) : text);
  }

  /** The rest. */
  end(): string {
    return shown(this.#held + this.#decoder.decode());
  }
}

const shown = (text: string): string =>
  stripVTControlCharacters(text).replace(CONTROLS, (char) => (KEPT.has(char) ? char : ''));
