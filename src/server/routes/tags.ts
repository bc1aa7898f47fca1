/** Tags of snapshots. */
import { Type } from 'typebox';
import { TagBody, Tagged } from '../schemas.js';
import type { App, Service } from '../service.js';

const params = Type.Object({ tag: Type.String() });

export function tagRoutes(app: App, { store }: Service): void {
  app.put(
    '/v1/tags/:tag',
    {
      schema: {
        summary: 'Add a tag to a snapshot; a tag in use moves',
        params,
        body: TagBody,
        response: { 200: Tagged },
      },
    },
    ({ params: { tag }, body: { snapshot } }) => store.ask('tag', snapshot, [tag]),
  );

  app.delete(
    '/v1/tags/:tag',
    { schema: { summary: 'Remove a tag, and keep its snapshot', params, response: { 204: Type.Null() } } },
    async ({ params: { tag } }, reply) => {
      await store.ask('untag', [tag]);
      return reply.code(204).send(null);
    },
  );
}
