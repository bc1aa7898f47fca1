/** Whether something is the terminal that progress is shown on: then the bar would be mixed with it. */
import { fstatSync, type Stats } from 'node:fs';

/** Of stat(2): /dev/tty, the terminal of whoever opens it. */
const OWN_TERMINAL = 0x500;

/** `stats`: of what is read or written; `shown`: of what the bar goes to. */
export const isSharedTerminal = (stats: Stats | null, shown: Pick<Stats, 'rdev'> = fstatSync(2)): boolean =>
  stats?.isCharacterDevice() === true && (stats.rdev === shown.rdev || stats.rdev === OWN_TERMINAL);
