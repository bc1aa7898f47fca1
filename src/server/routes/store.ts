/** The store as a whole. */

import { Stats } from '../schemas.js';
import type { App, Service } from '../service.js';

export function storeRoutes(app: App, { store }: Service): void {
  app.get(
    '/v1/store',
    { schema: { summary: 'What the store holds, and what it takes', response: { 200: Stats } } },
    () => store.ask('stats'),
  );
}
