/**
 * The API of the program that livesnap replaces, for its clients: `POST /create` and `POST /snapshot` on loopback.
 *
 * What flows: requests name kernels, snapshots and taps by the words of the old API; the library starts, restores and
 * saves machines. The two files of an old snapshot are one snapshot here (two-file-snapshot.ts).
 *
 * Invariants:
 * - It listens on loopback alone, and needs no token, because its clients have none. So every user of the host can call
 *   it, and it accepts only what its start has named: kernels below `--allow`, taps by `--tap`, one starter file.
 * - A failed save is an error, where the old program answered success.
 */
import type { Server } from 'node:http';
import { STATUS_CODES } from 'node:http';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import fastify, { type FastifyError, type FastifyInstance } from 'fastify';
import { Type } from 'typebox';
import { runRoot } from '../environment.js';
import { LivesnapError } from '../errors.js';
import type { Host } from '../host/host.js';
import { starterLines } from '../host/starter-file.js';
import { errorOfTwoFiles, snapshotNamed } from '../host/two-file-snapshot.js';
import { HttpError } from '../machine/http-status.js';
import { listenError } from '../machine/listen-error.js';
import { loopbackOrigins, wrongOrigin } from '../machine/origin.js';
import { listRunDirectories } from '../machine/run-directory.js';
import type { AllowedFile, AllowedFiles } from './allowed-files.js';
import { problemOf } from './problem.js';
import type { ServerLog } from './server-log.js';
import { tapAllowedBy } from './taps.js';

const MAX_BODY_BYTES = 16 * 1024;
/** `192.168.(200 + id).2` is an address up to here. */
const MAX_ID = 55;
const MAX_PATH_LENGTH = 4096;

const KERNEL_HINT = 'Give the absolute path of a file below DIR of livesnap serve --original --allow DIR.';

export interface OriginalOptions {
  readonly port: number;
  /** The starter file of machines that boot: its path, for messages, and its content. Null: nothing is typed. */
  readonly starter: { readonly path: string; readonly bytes: Uint8Array } | null;
}

interface OriginalSources {
  readonly host: Host;
  readonly files: AllowedFiles;
  /** Names of taps that requests may use. */
  readonly taps: ReadonlySet<string>;
  readonly log: ServerLog;
}

const CLOSED = { additionalProperties: false };
const path = Type.String({ minLength: 1, maxLength: MAX_PATH_LENGTH });
const text = Type.String({ maxLength: 256 });

const CreateBody = Type.Object(
  {
    kernel_path: path,
    cpu_snapshot_path: path,
    memory_snapshot_path: path,
    resume: Type.Boolean(),
    tap_device: Type.Optional(Type.Union([Type.String({ maxLength: 15 }), Type.Null()])),
    config: Type.Optional(
      Type.Union([
        Type.Object(
          { username: text, password: text, id: Type.Integer({ minimum: 0, maximum: MAX_ID }) },
          CLOSED,
        ),
        Type.Null(),
      ]),
    ),
  },
  CLOSED,
);

const SnapshotBody = Type.Object(
  {
    cpu_snapshot_path: path,
    memory_snapshot_path: path,
    rpc_port: Type.Integer({ minimum: 1, maximum: 65_535 }),
    resume: Type.Boolean(),
  },
  CLOSED,
);

/** Errors: NAME_IN_USE (the port is taken), USAGE. */
export async function serveOriginal(
  sources: OriginalSources,
  options: OriginalOptions,
): Promise<{ readonly url: string; close(): Promise<void> }> {
  const app = makeApp(sources, options);
  try {
    await app.listen({ host: '127.0.0.1', port: options.port });
  } catch (error) {
    throw listenError(`port ${options.port}`, error, 'Choose another port: --original PORT.');
  }
  return { url: `http://127.0.0.1:${portOf(app.server)}`, close: () => app.close() };
}

const portOf = (server: Server): number => (server.address() as { port: number }).port;

function makeApp({ host, files, taps, log }: OriginalSources, options: OriginalOptions): FastifyInstance {
  const app = fastify({
    logger: false,
    bodyLimit: MAX_BODY_BYTES,
    forceCloseConnections: true,
    connectionTimeout: 30_000,
    requestTimeout: 30_000,
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, useDefaults: false } },
  }).withTypeProvider<TypeBoxTypeProvider>();
  // A page of a browser may send text elsewhere without asking. It is no request.
  app.removeContentTypeParser('text/plain');
  app.server.maxConnections = 64;
  app.addHook('onRequest', async (request) => {
    const wrong = wrongOrigin(request.headers, loopbackOrigins(portOf(app.server)));
    if (wrong !== null) throw new HttpError(403, wrong);
  });
  app.setErrorHandler((thrown: FastifyError, _request, reply) => {
    const { status, code, detail, hint: given } = problemOf(thrown);
    // A body that does not fit, or is no JSON. This port has no /openapi.json.
    const isOfOther = thrown.validation !== undefined || given?.includes('/openapi.json') === true;
    const hint = isOfOther ? 'docs/server.md shows the requests.' : given;
    if (status >= 500 && code === 'SYSTEM') log.fault(thrown);
    return reply.code(status).send(refusal(status, hint === null ? detail : `${detail}. ${hint}`));
  });
  app.setNotFoundHandler((_request, reply) =>
    reply.code(404).send(refusal(404, 'The requests are POST /create and POST /snapshot.')),
  );

  app.post('/create', { schema: { body: CreateBody } }, async ({ body }) => {
    const { kernel_path, cpu_snapshot_path, memory_snapshot_path, resume, tap_device, config } = body;
    const backend = tap_device == null ? null : tapAllowedBy(taps, tap_device);
    const begin = async () => {
      if (resume)
        return host
          .restore(snapshotNamed(cpu_snapshot_path, memory_snapshot_path), {
            port: 0,
            nets: backend === null ? [] : [{ index: 0, backend }],
          })
          .catch((error) => {
            throw errorOfTwoFiles(error, cpu_snapshot_path, memory_snapshot_path);
          });
      using kernel = kernelAt(files, kernel_path);
      return await host.start({
        port: 0,
        kernel: kernel.path,
        nets: backend === null ? [] : [{ backend, mac: null }],
        starter: { lines: linesFor(options.starter, config ?? null), prompt: null },
      });
    };
    const machine = await begin();
    machine.detach();
    const record = await machine.client.directory.readRecord();
    if (!record?.port) throw new LivesnapError('SYSTEM', `the machine ${machine.name} has no port`);
    return { pid: machine.about.pid, port: record.port };
  });

  app.post('/snapshot', { schema: { body: SnapshotBody } }, async ({ body }, reply) => {
    const { cpu_snapshot_path, memory_snapshot_path, rpc_port, resume } = body;
    const machine = await host.machine(await nameOnPort(rpc_port));
    await machine.save({
      store: host.storeDir,
      tags: [snapshotNamed(cpu_snapshot_path, memory_snapshot_path)],
      then: resume ? 'resume' : 'pause',
    });
    return reply.type('application/json').send(JSON.stringify('Snapshot taken successfully'));
  });
  return app as unknown as FastifyInstance;
}

/** Errors: HttpError 403. Its own hint would tell of the snapshots of the other API. */
function kernelAt(files: AllowedFiles, path: string): AllowedFile {
  try {
    return files.open(path);
  } catch (error) {
    if (!(error instanceof HttpError)) throw error;
    throw new HttpError(error.status, error.message, KERNEL_HINT);
  }
}

function linesFor(
  starter: OriginalOptions['starter'],
  config: { readonly username: string; readonly password: string; readonly id: number } | null,
): readonly string[] {
  if (starter === null) return [];
  const values =
    config === null
      ? []
      : [
          ['username', config.username],
          ['password', config.password],
          ['id', String(config.id)],
          ['ip', `192.168.${200 + config.id}.2`],
        ];
  for (const [key, value] of values)
    if (/[\r\n]/.test(value!))
      throw new HttpError(400, `the ${key} has a line end`, 'Give a value of one line.');
  return starterLines(starter.path, starter.bytes, new Map(values as [string, string][]));
}

/** The machine that runs and has its control API on this port. Errors: NO_SUCH_MACHINE. */
async function nameOnPort(port: number): Promise<string> {
  for (const directory of await listRunDirectories(runRoot()))
    if ((await directory.readRecord())?.port === port && (await directory.look()) === 'live')
      return directory.name;
  throw new LivesnapError('NO_SUCH_MACHINE', `no machine has its API on port ${port}`, {
    hint: 'Use the port that POST /create has answered.',
  });
}

const refusal = (status: number, description: string) => ({
  error: { code: status, reason: STATUS_CODES[status] ?? 'Error', description },
});
