/** The header Prefer, with which a client says how it wants its answer (RFC 7240). */
import type { IncomingHttpHeaders } from 'node:http';

/** Section 4.1: the answer comes before the work is done. Section 4.3: the answer comes when it is done. */
type Preference = 'respond-async' | 'wait';

/** Whether a request has the preference, with or without a value. */
export const prefers = ({ prefer }: IncomingHttpHeaders, preference: Preference): boolean =>
  [prefer ?? []].flat().some((value) => new RegExp(`(^|,)\\s*${preference}\\s*(=|,|;|$)`, 'i').test(value));
