/** Processor and disk time that nothing else wants: SCHED_IDLE and IOPRIO_CLASS_IDLE of Linux. */
import { addon, isAddonBuilt, missingAddon } from './addon.js';

interface IdleTimeFunctions {
  useIdleTime(): void;
}

/** To be called before work that wants to use idle time is begun. Errors: SYSTEM. */
export function requireIdleTime(): void {
  if (!isAddonBuilt) throw missingAddon();
}

/**
 * From now on the calling thread, and native threads that it starts, use only time that no other thread of the host
 * wants. It cannot be undone, so call it in a Worker that ends with its work. Errors: SYSTEM.
 */
export const useIdleTime = (): void => addon<IdleTimeFunctions>().useIdleTime();
