/**
 * The prompt of a starter file as a test of lines that takes bounded time. The pattern is the user's, but the guest
 * chooses the lines, and a pattern such as `(a+)+$` takes exponential time for some of them.
 *
 * Thread: the main thread of the process of a machine.
 *
 * Invariants:
 * - A test that takes longer than {@link TEST_MS} is given up: the line is no prompt.
 * - After {@link MAX_GIVEN_UP} of them no line is a prompt any more.
 * - Only the end of a long line is tested.
 */
import { createContext, Script } from 'node:vm';

const TEST_MS = 250;
/** More than one, because a busy host can interrupt a harmless test. */
const MAX_GIVEN_UP = 3;

/** No prompt is longer. A pattern that takes quadratic time is harmless for so few characters. */
const MAX_CHARACTERS = 1024;

const TEST = new Script('pattern.test(line)');

export class PromptPattern {
  readonly #context: { readonly pattern: RegExp; line: string };
  readonly #onGivenUp: () => void;
  #givenUp = 0;

  /** `onGivenUp` is called once, when no line is a prompt any more. */
  constructor(pattern: RegExp, onGivenUp: () => void) {
    this.#context = { pattern, line: '' };
    createContext(this.#context);
    this.#onGivenUp = onGivenUp;
  }

  test(line: string): boolean {
    if (this.#givenUp === MAX_GIVEN_UP) return false;
    this.#context.line = line.slice(-MAX_CHARACTERS);
    try {
      // V8 interrupts a regular expression only on behalf of a script that has a time limit.
      return TEST.runInContext(this.#context, { timeout: TEST_MS });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
      if (++this.#givenUp === MAX_GIVEN_UP) this.#onGivenUp();
      return false;
    }
  }
}
