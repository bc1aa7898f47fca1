/** Loads the bundle of the server, so that the code of other verbs stays small. */
import { loadBundle } from '../native/modules.js';

export const loadHostServer = (): typeof import('./host-server.js') =>
  loadBundle(new URL('./host-server.js', import.meta.url));
