/** Snapshots as tar archives: downloads and uploads. */
import { closeSync, mkdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { Type } from 'typebox';
import { holdDirectory, makeUploadDirectory } from '../../jobs/upload-directory.js';
import { HttpError } from '../../machine/http-status.js';
import { Job } from '../schemas.js';
import type { App, Service } from '../service.js';
import { tarOf, untar } from '../tar.js';
import { runJob } from './jobs.js';

const TAR = 'application/x-tar';
const MAX_TRANSFERS = 8;
/** An upload that brings nothing for so long has ended. */
const STALLED_MS = 60_000;

export function archiveRoutes(app: App, service: Service): void {
  const { store, maxImportBytes } = service;
  let transfers = 0;
  const begin = (): void => {
    if (transfers >= MAX_TRANSFERS)
      throw new HttpError(503, 'too many archives are transferred', 'Try again later.');
    transfers++;
  };
  const end = (): void => {
    transfers--;
  };
  app.addContentTypeParser(TAR, (_request, payload, done) => done(null, payload));

  app.get(
    '/v1/snapshots/:snapshot/export',
    {
      schema: {
        summary: 'Download a snapshot as a tar archive of a store with it alone',
        params: Type.Object({ snapshot: Type.String({ pattern: '^[^*?/]+$' }) }),
      },
    },
    async ({ params }, reply) => {
      const { id } = await store.ask('find', params.snapshot);
      begin();
      const directory = makeUploadDirectory();
      const lock = holdDirectory(directory);
      const cleanUp = async (): Promise<void> => {
        end();
        await rm(directory, { recursive: true, force: true });
        closeSync(lock);
      };
      try {
        await store.ask('export', id, join(directory, 'store'));
      } catch (error) {
        await cleanUp();
        throw error;
      }
      const stream = Readable.from(tarOf(join(directory, 'store'), id.slice(0, 12)));
      stream.once('close', () => void cleanUp());
      return reply
        .type(TAR)
        .header('content-disposition', `attachment; filename="livesnap-${id.slice(0, 12)}.tar"`)
        .send(stream);
    },
  );

  app.post(
    '/v1/snapshots',
    {
      schema: {
        summary: 'Upload a tar archive of an exported directory, whose contents are verified',
        description: 'Answered with a job when all has arrived, or with `Prefer: wait` with its result.',
        response: { 200: Type.Unknown(), 202: Job },
      },
    },
    async (request, reply) => {
      if (!(request.body instanceof Readable))
        throw new HttpError(415, 'the body is no archive', `Send the type ${TAR}.`);
      begin();
      const temporary = makeUploadDirectory();
      const lock = holdDirectory(temporary);
      let isTaken = false;
      try {
        const dir = join(temporary, 'store');
        mkdirSync(dir, { mode: 0o700 });
        await untar(unstalled(request.body), dir, maxImportBytes);
        isTaken = true;
        return await runJob(service, request, reply, { kind: 'import', dir, temporary });
      } finally {
        end();
        if (!isTaken) await rm(temporary, { recursive: true, force: true });
        closeSync(lock);
      }
    },
  );
}

/** Ends a stream that stalls. Errors: HttpError 408. */
async function* unstalled(stream: Readable): AsyncGenerator<Buffer> {
  let timer: NodeJS.Timeout | undefined;
  const wait = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => stream.destroy(new HttpError(408, 'the upload has stalled')), STALLED_MS);
  };
  try {
    wait();
    for await (const part of stream) {
      wait();
      yield part as Buffer;
    }
  } finally {
    clearTimeout(timer);
  }
}
