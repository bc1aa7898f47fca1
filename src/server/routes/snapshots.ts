/** Snapshots of the stores. */
import { Type } from 'typebox';
import { shortId } from '../../format.js';
import { Snapshot as SnapshotObject } from '../../host/snapshot.js';
import {
  Difference,
  DownloadQuery,
  Fit,
  type ForkResult,
  forkSchema,
  list,
  Machine,
  RestoreBody,
  Snapshot,
  SnapshotDetails,
  StoreQuery,
} from '../schemas.js';
import type { App, Service } from '../service.js';
import { runJob } from './jobs.js';
import { machineOf } from './machines.js';

/** `DELETE` takes no pattern of tags, as the library does: it would delete several snapshots. */
const ref = Type.String({ pattern: '^[^*?]+$' });
/** Of a query, which has only text. */
const digits = (description: string) => Type.Optional(Type.String({ pattern: '^[0-9]{1,15}$', description }));
const numberOf = (text: string | undefined): number | undefined =>
  text === undefined ? undefined : Number(text);
const MapQuery = Type.Object(
  {
    region: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: 'Default: the first.' })),
    base: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: 'Default: the parent.' })),
    fromPage: digits('A multiple of 512. Default: 0.'),
    pages: digits('Default: all.'),
    maxCells: digits('Default: 4096.'),
    ...StoreQuery.properties,
  },
  { additionalProperties: false },
);
const params = Type.Object({ snapshot: ref });

export function snapshotRoutes(app: App, service: Service): void {
  const { stores } = service;
  app.get(
    '/v1/snapshots',
    {
      schema: {
        summary: 'List snapshots, oldest first',
        querystring: DownloadQuery,
        response: { 200: list(Snapshot) },
      },
    },
    ({ query }) => stores.named(query.store).client.ask('list'),
  );

  app.get(
    '/v1/snapshots/:snapshot',
    {
      schema: {
        summary: 'Describe a snapshot',
        params,
        querystring: DownloadQuery,
        response: { 200: SnapshotDetails },
      },
    },
    ({ params: { snapshot }, query }) => stores.named(query.store).client.ask('details', snapshot),
  );

  app.delete(
    '/v1/snapshots/:snapshot',
    {
      schema: {
        summary: 'Delete a snapshot with its tags; gc then frees the disk space',
        params,
        querystring: StoreQuery,
        response: { 204: Type.Null() },
      },
    },
    async ({ params: { snapshot }, query }, reply) => {
      await stores.named(query.store).client.ask('remove', [snapshot]);
      return reply.code(204).send(null);
    },
  );

  app.get(
    '/v1/snapshots/:snapshot/fit',
    {
      schema: {
        summary: 'Whether a machine can be restored on this host',
        params,
        querystring: DownloadQuery,
        response: { 200: Fit },
      },
    },
    async ({ params: { snapshot }, query }) => {
      const { findings } = await stores.named(query.store).client.ask('fit', snapshot);
      return { fits: findings.every(({ level }) => level !== 'refuse'), findings };
    },
  );

  app.get(
    '/v1/snapshots/:snapshot/map',
    {
      schema: {
        summary: 'What the pages of a region are: one byte a cell',
        description:
          'The body has one byte a cell, the sum of the classes of its pages: 1 own, 2 shared, 4 damaged, 8 changed. The header livesnap-page-map has the rest, as JSON.',
        params,
        querystring: MapQuery,
      },
    },
    async ({ params: { snapshot }, query }, reply) => {
      const { region, base, fromPage, pages, maxCells } = query;
      const { cells, ...about } = await stores.named(query.store).client.ask('map', snapshot, {
        region,
        base,
        fromPage: numberOf(fromPage),
        pages: numberOf(pages),
        maxCells: numberOf(maxCells),
      });
      return reply
        .type('application/octet-stream')
        .header('livesnap-page-map', JSON.stringify(about))
        .send(Buffer.from(cells.buffer, cells.byteOffset, cells.length));
    },
  );

  app.get(
    '/v1/snapshots/:snapshot/diff/:other',
    {
      schema: {
        summary: 'Which pages differ between two snapshots, by region',
        params: Type.Object({ snapshot: ref, other: ref }),
        querystring: DownloadQuery,
        response: { 200: list(Difference) },
      },
    },
    ({ params: { snapshot, other }, query }) =>
      stores.named(query.store).client.ask('diff', { snapshot }, { snapshot: other }),
  );

  app.post(
    '/v1/snapshots/:snapshot/restore',
    {
      schema: {
        summary: 'Restore a machine from a snapshot; answered when it runs',
        params,
        querystring: StoreQuery,
        body: RestoreBody,
        response: { 201: Machine },
      },
    },
    async ({ params: { snapshot }, query, body }, reply) => {
      const { client, host } = stores.named(query.store);
      // The store's thread finds it: a store that another process uses blocks the thread that opens it.
      const found = await client.ask('find', snapshot);
      const machine = await host.restore(new SnapshotObject(host.store, found), body);
      machine.detach();
      return reply
        .code(201)
        .header('location', `/v1/machines/${machine.id}`)
        .send(await machineOf(machine.id));
    },
  );

  app.post(
    '/v1/snapshots/:snapshot/fork',
    {
      schema: {
        summary: 'Restore a machine several times, as clones',
        params,
        querystring: StoreQuery,
        ...forkSchema,
      },
    },
    async (request, reply) => {
      const store = stores.named(request.query.store);
      const { id, tags } = await store.client.ask('find', request.params.snapshot);
      const work = { kind: 'fork', from: { snapshot: id }, ...request.body } as const;
      return runJob<ForkResult>(service, request, reply, store, work, tags[0] ?? shortId(id));
    },
  );
}
