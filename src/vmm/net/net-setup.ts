/** What the device thread needs of a network; it can be cloned by postMessage. */
import type { NetPort } from '../../native/net.js';

export interface NetSetup {
  readonly name: string;
  readonly mac: string;
  readonly offloads: boolean;
  /** Null: nothing is connected. */
  readonly port: NetPort | null;
  readonly isStream: boolean;
  /** Memory of NetCounters. */
  readonly counters: SharedArrayBuffer;
}
