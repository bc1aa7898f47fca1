/** One line for the person: what was done, or why it was not. */
import { ApiError } from './api.js';

export interface Notice {
  readonly text: string;
  readonly isBad: boolean;
}

let show: (notice: Notice) => void = () => {};
export const whenNoticed = (listener: (notice: Notice) => void): void => {
  show = listener;
};

export const say = (text: string): void => show({ text, isBad: false });

/** Does what a button is for, and tells when it fails. Resolves to null then. */
export async function attempt<T>(work: () => Promise<T>): Promise<T | null> {
  try {
    return await work();
  } catch (error) {
    const text =
      error instanceof ApiError
        ? `${error.message}${error.hint === null ? '' : `. ${error.hint}`}`
        : 'The server did not answer.';
    show({ text, isBad: true });
    return null;
  }
}
