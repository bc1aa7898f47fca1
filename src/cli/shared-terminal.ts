/** Detects data that is read from or written to the terminal of the progress bar. The bar is left out then. */
import { fstatSync, type Stats } from 'node:fs';

/** The device number of /dev/tty: the controlling terminal. */
const CONTROLLING_TERMINAL = 0x500;

/** `stats`: the data's file. `shown`: the bar's, which is stderr. */
export const isSharedTerminal = (stats: Stats | null, shown: Pick<Stats, 'rdev'> = fstatSync(2)): boolean =>
  stats?.isCharacterDevice() === true && (stats.rdev === shown.rdev || stats.rdev === CONTROLLING_TERMINAL);
