/** What the server tells, as the page has it. The schemas are the server's. */
export type { HostAbout, Job, Machine, Overview, Usage } from '../../server/schemas.js';

import type { Overview } from '../../server/schemas.js';

export type Snapshot = Overview['snapshots'][number];
