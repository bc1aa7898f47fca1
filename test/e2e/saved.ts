/** Results of verbs in JSON. */

export interface Saved {
  id: string;
  parent: string | null;
  pauseMs: number;
  storedBytes: number;
}

/** The result of save and put, with its tags. */
export interface Tagged extends Saved {
  tags: string[];
  movedTags: { tag: string; from: string }[];
}

export interface Listed {
  id: string;
  tags: string[];
  storedBytes: number;
}

/** The keys of the result of save and put. */
export const SAVE_KEYS =
  'id tags movedTags parent pauseMs pausePhases storedWhilePausedBytes saveMs pages zeroPages unchangedPages newChunks reusedChunks storedBytes'.split(
    ' ',
  );
