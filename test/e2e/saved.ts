/** Results of verbs in JSON. */

export interface Saved {
  id: string;
  parent: string | null;
  pauseMs: number;
  storedBytes: number;
}

export interface Listed {
  id: string;
  tag: string | null;
  storedBytes: number;
}

/** The keys of the result of save and put. */
export const SAVE_KEYS =
  'id tag movedFrom parent pauseMs pausePhases storedWhilePausedBytes saveMs pages zeroPages unchangedPages newChunks reusedChunks storedBytes'.split(
    ' ',
  );
