/**
 * What a snapshot keeps of a console besides the serial port: the last output, and starter lines that were not typed yet.
 *
 * Invariants:
 * - Both have a limit, which is checked in a restore too, because anybody may have written the store.
 * - Older snapshots have none of it. Older versions of livesnap ignore it.
 * - Both are bytes, so that no text in them counts as structure when the size of the state is checked.
 */
import { bytes, type Check, flag, object } from '../../schema.js';

/** How much past output a snapshot has. A viewer sees as much when it attaches. */
export const SAVED_HISTORY_BYTES = 64 * 1024;
/** The limit of a starter file, after its placeholders are replaced. */
export const MAX_STARTER_BYTES = 64 * 1024;

export interface SavedConsole {
  /** The end of the output until the moment of the snapshot. */
  readonly history: Uint8Array;
  /** Lines that are still to be typed, in UTF-8, separated by line feeds. Empty: none. */
  readonly starter: Uint8Array;
  /** The output ends within the line in which the last starter line was typed. */
  readonly starterInLine: boolean;
}

export const SAVED_CONSOLE: Check<SavedConsole> = object(
  { history: bytes(0, SAVED_HISTORY_BYTES), starter: bytes(0, MAX_STARTER_BYTES), starterInLine: flag },
  { others: 'ignore' },
);
