/** Tags of snapshots. */
import { Type } from 'typebox';
import { StoreQuery, TagBody, Tagged } from '../schemas.js';
import type { App, Service } from '../service.js';

const params = Type.Object({ tag: Type.String() });

export function tagRoutes(app: App, { stores }: Service): void {
  app.put(
    '/v1/tags/:tag',
    {
      schema: {
        summary: 'Add a tag to a snapshot; a tag in use moves',
        params,
        querystring: StoreQuery,
        body: TagBody,
        response: { 200: Tagged },
      },
    },
    ({ params: { tag }, query, body: { snapshot } }) =>
      stores.named(query.store).client.ask('tag', snapshot, [tag]),
  );

  app.delete(
    '/v1/tags/:tag',
    {
      schema: {
        summary: 'Remove a tag, and keep its snapshot',
        params,
        querystring: StoreQuery,
        response: { 204: Type.Null() },
      },
    },
    async ({ params: { tag }, query }, reply) => {
      await stores.named(query.store).client.ask('untag', [tag]);
      return reply.code(204).send(null);
    },
  );
}
