/**
 * Notes for the user about this process: a variable that is ignored, a store that is read without locks.
 *
 * Invariant: each note is given once a process, and only after someone listens.
 */

const given = new Set<string>();
let listener: ((sentence: string) => void) | null = null;

/** Sends notes to `receive` from now on; null: to nobody. */
export function onNote(receive: ((sentence: string) => void) | null): void {
  listener = receive;
}

/** Gives a note, unless one about the same `subject` has been given. */
export function note(subject: string, sentence: string): void {
  if (listener === null || given.has(subject)) return;
  given.add(subject);
  listener(sentence);
}
