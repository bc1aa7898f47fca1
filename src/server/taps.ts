/** Taps of the host that requests may use. */
import { HttpError } from '../machine/http-status.js';
import type { TapBackend } from '../vmm/net/net-config.js';

/** The connection to a tap. Errors: HttpError 403 (the start has not named it). */
export function tapAllowedBy(taps: ReadonlySet<string>, tap: string): TapBackend {
  if (!taps.has(tap))
    throw new HttpError(
      403,
      `the tap ${JSON.stringify(tap)} is not allowed`,
      'Start the server with --tap TAP.',
    );
  return { kind: 'tap', tap, netns: null, create: false, address: null };
}
