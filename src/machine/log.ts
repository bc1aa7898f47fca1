/**
 * The log of a machine's process: entries on its standard output, which is the file `log` of its run directory.
 *
 * Invariants:
 * - Nothing here throws or emits an error: a log that cannot be written is no failure of the machine.
 * - Entries that do not fit on the disk are dropped and counted. The count is written when there is room again.
 * - The size of an entry is limited.
 */
import { writeSync } from 'node:fs';
import { inspect } from 'node:util';

const MAX_ENTRY_CHARACTERS = 16 * 1024;

export class Log {
  #dropped = 0;
  /** The file ends with part of an entry that did not fit. */
  #isTorn = false;

  constructor(readonly fd: number) {}

  /** Writes a sentence, with the time before it. */
  readonly write = (sentence: string): void => {
    if (this.#dropped > 0 && this.#append(`${this.#dropped} earlier entries dropped: the disk was full`))
      this.#dropped = 0;
    if (this.#dropped > 0 || !this.#append(sentence)) this.#dropped++;
  };

  /** Writes an error with its stack, code and cause. */
  readonly writeError = (error: unknown): void => this.write(inspect(error));

  #append(text: string): boolean {
    const cut = text.length > MAX_ENTRY_CHARACTERS ? `${text.slice(0, MAX_ENTRY_CHARACTERS)} …` : text;
    const entry = Buffer.from(`${this.#isTorn ? '\n' : ''}${new Date().toISOString()} ${cut}\n`);
    let written = 0;
    try {
      while (written < entry.length) written += writeSync(this.fd, entry, written);
      this.#isTorn = false;
      return true;
    } catch {
      this.#isTorn ||= written > 0;
      return false;
    }
  }
}

/** The log of this process. */
export const log = new Log(1);

/**
 * Keeps an error of a standard stream from ending the process. Node's warnings and the consoles of Workers are written
 * there too, and a stream error without a listener is an uncaught exception.
 */
export function ignoreStreamErrors(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
}
