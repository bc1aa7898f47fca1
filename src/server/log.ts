/**
 * The log of a machine's process: entries on its standard output, which is the file `log` of its run directory.
 *
 * Invariants: nothing here throws or emits an error, since a log that cannot be written is no failure of the machine.
 * Entries that do not fit on the disk are dropped and counted, and the count is written when there is room again. An
 * entry is bounded.
 */
import { writeSync } from 'node:fs';
import { inspect } from 'node:util';

const MAX_ENTRY_CHARACTERS = 16 * 1024;

export class Log {
  #dropped = 0;
  /** The end of the file is the beginning of an entry that did not fit. */
  #torn = false;

  constructor(readonly fd: number) {}

  /** Writes a sentence, with the time before it. */
  readonly write = (sentence: string): void => {
    if (this.#dropped > 0 && this.#append(`${this.#dropped} entries before this one did not fit on the disk`))
      this.#dropped = 0;
    if (this.#dropped > 0 || !this.#append(sentence)) this.#dropped++;
  };

  /** Writes all that is known of an error, its stack first. */
  readonly writeError = (error: unknown): void => this.write(inspect(error));

  #append(text: string): boolean {
    const cut = text.length > MAX_ENTRY_CHARACTERS ? `${text.slice(0, MAX_ENTRY_CHARACTERS)} …` : text;
    const entry = Buffer.from(`${this.#torn ? '\n' : ''}${new Date().toISOString()} ${cut}\n`);
    let written = 0;
    try {
      while (written < entry.length) written += writeSync(this.fd, entry, written);
      this.#torn = false;
      return true;
    } catch {
      this.#torn ||= written > 0;
      return false;
    }
  }
}

/** The log of this process. */
export const log = new Log(1);

/**
 * Keeps the standard streams of this process from ending it: Node's warnings and the consoles of Workers are written
 * there, too, and a stream's error that nobody hears is an uncaught exception.
 */
export function ignoreStreamErrors(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
}
