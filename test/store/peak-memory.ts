/** How much memory a child process took. */
import { readFileSync } from 'node:fs';

/**
 * The largest resident memory of this process so far, in KiB. `process.resourceUsage().maxRSS` would count the process
 * that started it, too: Linux carries that figure over an exec.
 */
export const peakRssKiB = (): number =>
  Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1'))![1]);
