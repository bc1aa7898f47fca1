/** Snapshots as tar archives: downloads and uploads. */
import { closeSync, mkdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { Type } from 'typebox';
import { LivesnapError } from '../../errors.js';
import { holdDirectory, makeUploadDirectory, uploadParent } from '../../jobs/upload-directory.js';
import { HttpError } from '../../machine/http-status.js';
import { DownloadQuery, Job, StoreQuery } from '../schemas.js';
import type { App, Service } from '../service.js';
import { endIfNotTaken, unlessStalled } from '../stalled.js';
import { tarOf, untar } from '../tar.js';
import { answerWithJob, subjectOf } from './jobs.js';

const TAR = 'application/x-tar';
const MAX_TRANSFERS = 8;

/** A transfer has a directory, which it deletes at its end unless a job has taken it over. */
interface Transfer {
  readonly directory: string;
  end(isTaken?: boolean): Promise<void>;
}

export function archiveRoutes(app: App, service: Service): void {
  const { stores, jobs, maxImportBytes, log } = service;
  let transfers = 0;
  const begin = (): Transfer => {
    if (transfers >= MAX_TRANSFERS)
      throw new HttpError(503, 'too many archives are transferred', 'Try again later.');
    const directory = makeUploadDirectory();
    const lock = holdDirectory(directory);
    transfers++;
    return {
      directory,
      async end(isTaken = false) {
        transfers--;
        try {
          if (!isTaken) await rm(directory, { recursive: true, force: true });
        } catch (error) {
          log.fault(error); // the next server deletes it
        } finally {
          closeSync(lock);
        }
      },
    };
  };
  app.addContentTypeParser(TAR, (_request, payload, done) => done(null, payload));

  app.get(
    '/v1/snapshots/:snapshot/export',
    {
      schema: {
        summary: 'Download a snapshot as a tar archive of a store with it alone',
        params: Type.Object({ snapshot: Type.String({ pattern: '^[^*?/]+$' }) }),
        querystring: DownloadQuery,
      },
    },
    async ({ params, query }, reply) => {
      const { client } = stores.named(query.store);
      const { id } = await client.ask('find', params.snapshot);
      const transfer = begin();
      const dir = join(transfer.directory, 'store');
      try {
        await client.ask('export', id, dir);
      } catch (error) {
        await transfer.end();
        throw unlessFull(error, 'NO_SPACE');
      }
      const stream = Readable.from(tarOf(dir, id.slice(0, 12)));
      stream.once('close', () => void transfer.end());
      endIfNotTaken(reply.raw);
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
        querystring: StoreQuery,
        response: { 200: Type.Unknown(), 202: Job },
      },
    },
    async (request, reply) => {
      const { body, query } = request;
      const store = stores.named(query.store);
      if (!(body instanceof IncomingMessage))
        throw new HttpError(415, 'the body is no archive', `Send the type ${TAR}.`);
      const transfer = begin();
      let isTaken = false;
      try {
        const dir = join(transfer.directory, 'store');
        mkdirSync(dir, { mode: 0o700 });
        await untar(unlessStalled(body), dir, maxImportBytes);
        const { id } = await jobs.processes.start(
          { kind: 'import', dir, temporary: transfer.directory },
          subjectOf(service, store),
          store.host.storeDir,
        );
        isTaken = true;
        return await answerWithJob(service, request, reply, id);
      } catch (error) {
        throw unlessFull(error, 'ENOSPC', 'EDQUOT');
      } finally {
        await transfer.end(isTaken);
      }
    },
  );
}

/** An error with one of the codes is one of the disk of the temporary files. */
function unlessFull(error: unknown, ...codes: string[]): unknown {
  if (!codes.includes((error as NodeJS.ErrnoException).code ?? '')) return error;
  return new LivesnapError('NO_SPACE', `an archive needs more space than ${uploadParent()} has`, {
    hint: 'Free some space there, or start the server with another directory in TMPDIR.',
    cause: error,
  });
}
