/** Machines of the host. */
import { mkdtemp, rm } from 'node:fs/promises';
import { join, normalize } from 'node:path';
import { Type } from 'typebox';
import { runRoot, temporaryDirectory } from '../../environment.js';
import { LivesnapError } from '../../errors.js';
import { findRunDirectory } from '../../host/find-machine.js';
import { consoleOf, lastLines, processLogOf } from '../../host/logs.js';
import { type MachineInfo, machineInfo } from '../../host/machine-info.js';
import type { DiskOptions } from '../../host/machine-options.js';
import { stopNamedMachine } from '../../host/stop-machine.js';
import { STOP_TIMEOUT_MS, type StopRequest } from '../../machine/control-api.js';
import { HttpError } from '../../machine/http-status.js';
import { prefers } from '../../machine/prefer.js';
import type { NetRequest } from '../../vmm/net/net-config.js';
import type { AllowedFile } from '../allowed-files.js';
import { ofSave } from '../jobs.js';
import {
  ChangeBody,
  type Disk,
  type FileSource,
  type ForkResult,
  forkSchema,
  Job,
  list,
  Machine,
  type Net,
  SaveBody,
  SaveQuery,
  SaveResult,
  StartBody,
  StopBody,
  StopResult,
  StoreQuery,
} from '../schemas.js';
import type { ServedStore } from '../served-stores.js';
import type { App, Service } from '../service.js';
import { tapAllowedBy } from '../taps.js';
import { accepted, runJob } from './jobs.js';

const params = Type.Object({ machine: Type.String() });
const STATE = Machine.properties.state;
const MAX_FILTERS = 64;
const STOP: StopRequest = { force: false, discard: false, timeoutMs: STOP_TIMEOUT_MS };

const described = (info: MachineInfo): Machine => ({ ...info, reason: info.reason ?? null });

/** A machine in any state, by its name, its ID or a unique prefix of that. Errors: NO_SUCH_MACHINE, AMBIGUOUS. */
export async function machineOf(nameOrId: string): Promise<Machine> {
  const directory = await findRunDirectory(nameOrId);
  const found = directory && (await machineInfo(directory));
  if (found) return described(found);
  throw noMachine(nameOrId);
}

const noMachine = (nameOrId: string): LivesnapError =>
  new LivesnapError('NO_SUCH_MACHINE', `there is no machine ${nameOrId}`, {
    hint: 'GET /v1/machines lists the machines.',
  });

/** `key` or `key=value`, one or several, as the library filters. */
function labelFilter(given: string | readonly string[] | undefined): Record<string, string | null> {
  return Object.fromEntries(
    [given ?? []].flat().map((text) => {
      const at = text.indexOf('=');
      return at < 0 ? [text, null] : [text.slice(0, at), text.slice(at + 1)];
    }),
  );
}

export function machineRoutes(app: App, service: Service): void {
  const { host, stores, files } = service;

  /** Gives `use` the path of a file that a request names, or undefined. */
  async function withFile<T>(
    { client }: ServedStore,
    source: FileSource | undefined,
    use: (path: string | undefined) => Promise<T>,
  ): Promise<T> {
    if (source === undefined) return use(undefined);
    if ('path' in source) {
      const file = files.open(source.path);
      try {
        return await use(file.path);
      } catch (error) {
        throw error instanceof LivesnapError ? renamed(error, file.path, source.path) : error;
      } finally {
        file[Symbol.dispose]();
      }
    }
    const directory = await mkdtemp(join(temporaryDirectory(), 'livesnap-serve-'));
    const path = join(directory, 'file');
    try {
      await client.ask('writeFile', source.snapshot, path);
      return await use(path);
    } catch (error) {
      throw error instanceof LivesnapError
        ? renamed(error, path, `the file of snapshot ${source.snapshot}`)
        : error;
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  /** The store that a machine is saved to. Errors: USAGE. */
  const storeOf = (query: { store?: string }, about: { readonly store: string }): ServedStore =>
    query.store === undefined ? stores.ofMachine(about) : stores.named(query.store);

  /** Gives `use` the disks that a request names. Images are open for as long as `use` takes. */
  async function withImages<T>(
    disks: readonly Disk[],
    use: (options: readonly DiskOptions[]) => Promise<T>,
  ): Promise<T> {
    const open: AllowedFile[] = [];
    try {
      const options = disks.map((disk): DiskOptions => {
        const { mode = 'rw', onError } = disk;
        if ('snapshot' in disk) {
          const { snapshot, region = null } = disk;
          return { source: { kind: 'snapshot', snapshot, region }, mode, onError };
        }
        const image = mode === 'rw' ? files.openToWrite(disk.path) : files.open(disk.path);
        open.push(image);
        return { source: { kind: 'file', path: normalize(disk.path), fd: image.fd }, mode, onError };
      });
      return await use(options);
    } finally {
      // The machine has descriptors of its own.
      for (const image of open) image[Symbol.dispose]();
    }
  }

  app.get(
    '/v1/machines',
    {
      schema: {
        summary: 'List machines',
        querystring: Type.Object(
          {
            label: Type.Optional(
              Type.Union([Type.String(), Type.Array(Type.String(), { maxItems: MAX_FILTERS })], {
                description: 'KEY or KEY=VALUE; all of several.',
              }),
            ),
            state: Type.Optional(Type.Union([STATE, Type.Array(STATE, { maxItems: MAX_FILTERS })])),
          },
          { additionalProperties: false },
        ),
        response: { 200: list(Machine) },
      },
    },
    async ({ query: { label, state } }) => {
      const states = state === undefined ? undefined : ([state].flat() as MachineInfo['state'][]);
      return (await host.machines({ labels: labelFilter(label), states })).map(described);
    },
  );

  app.post(
    '/v1/machines',
    {
      schema: {
        summary: 'Boot a machine; answered when it runs',
        querystring: StoreQuery,
        body: StartBody,
        response: { 201: Machine },
      },
    },
    async ({ query, body: { kernel, initrd, disks, nets, ...rest } }, reply) => {
      const store = stores.named(query.store);
      const connected = nets?.map((net) => connect(net, service));
      const machine = await withFile(store, kernel, (kernelPath) =>
        withFile(store, initrd, (initrdPath) =>
          withImages(disks ?? [], (opened) =>
            store.host.start({
              ...rest,
              kernel: kernelPath!,
              initrd: initrdPath,
              nets: connected,
              disks: opened,
            }),
          ),
        ),
      );
      machine.detach();
      return reply
        .code(201)
        .header('location', `/v1/machines/${machine.id}`)
        .send(await machineOf(machine.id));
    },
  );

  app.get(
    '/v1/machines/:machine',
    { schema: { summary: 'Describe a machine', params, response: { 200: Machine } } },
    ({ params: { machine } }) => machineOf(machine),
  );

  app.get(
    '/v1/machines/:machine/logs',
    {
      schema: {
        summary: 'The last output of the guest, or the log of the process, as text',
        params,
        querystring: Type.Object(
          {
            process: Type.Optional(Type.Enum(['true', 'false'], { description: 'The log of the process.' })),
            tail: Type.Optional(Type.String({ pattern: '^[0-9]{1,9}$', description: 'Only so many lines.' })),
          },
          { additionalProperties: false },
        ),
      },
    },
    async ({ params: { machine }, query }, reply) => {
      const directory = await findRunDirectory(machine);
      if (directory === null) throw noMachine(machine);
      const tail = query.tail === undefined ? null : Number(query.tail);
      reply.type('text/plain; charset=utf-8');
      if (query.process === 'true')
        return reply.send(Buffer.from(lastLines(await processLogOf(directory), tail)));
      const console = await consoleOf(directory);
      console.close();
      return reply.send(Buffer.from(lastLines(console.past, tail)));
    },
  );

  app.patch(
    '/v1/machines/:machine',
    {
      schema: {
        summary: 'Change the labels and the lifetime of a machine',
        params,
        body: ChangeBody,
        response: { 200: Machine },
      },
    },
    async ({ params, body: { labels, lifetimeMs } }) => {
      const machine = await host.machine(params.machine);
      if (labels !== undefined) await machine.setLabels(labels);
      if (lifetimeMs !== undefined) await machine.setLifetime(lifetimeMs);
      return machineOf(machine.id);
    },
  );

  app.delete(
    '/v1/machines/:machine',
    {
      schema: {
        summary: 'End a machine at once, or clean up a dead one',
        params,
        response: { 204: Type.Null() },
      },
    },
    async ({ params }, reply) => {
      const { name } = await machineOf(params.machine);
      await stopNamedMachine(name, { ...STOP, force: true }, runRoot());
      return reply.code(204).send(null);
    },
  );

  for (const operation of ['pause', 'resume'] as const)
    app.post(
      `/v1/machines/:machine/${operation}`,
      {
        schema: {
          summary: operation === 'pause' ? 'Pause a machine' : 'Resume a paused machine',
          params,
          response: { 200: Machine },
        },
      },
      async ({ params }) => {
        const machine = await host.machine(params.machine);
        await machine[operation]();
        return machineOf(machine.id);
      },
    );

  app.post(
    '/v1/machines/:machine/stop',
    {
      schema: {
        summary: 'Ask the guest to power off, then end the machine; answered when it has ended',
        params,
        body: StopBody,
        response: { 200: StopResult },
      },
    },
    async ({ params, body }) => {
      const { name } = await machineOf(params.machine);
      return stopNamedMachine(name, { ...STOP, ...body }, runRoot());
    },
  );

  app.post(
    '/v1/machines/:machine/save',
    {
      schema: {
        summary: 'Save a machine to a snapshot',
        description:
          'Answered with a job, which goes on without the client. With `Prefer: wait` it is answered when it is stored; a client that hangs up then cancels the save.',
        params,
        querystring: SaveQuery,
        body: SaveBody,
        response: { 200: SaveResult, 202: Job },
      },
    },
    async (request, reply) => {
      const machine = await host.machine(request.params.machine);
      const { storeDir } = storeOf(request.query, machine.about).host;
      if (!prefers(request.headers, 'wait')) {
        const { tags = [], then = null } = request.body;
        const save = await machine.client.startSave({ store: storeDir, tags, then });
        stores.lookSoon();
        return accepted(reply, ofSave(machine.id, machine.name, save));
      }
      const hungUp = new AbortController();
      reply.raw.once('close', () => {
        if (!reply.raw.writableFinished) hungUp.abort(new HttpError(400, 'the client hung up'));
      });
      return machine.save({ ...request.body, store: storeDir, signal: hungUp.signal });
    },
  );

  app.post(
    '/v1/machines/:machine/fork',
    {
      schema: {
        summary: 'Save a machine and restore it several times, as clones',
        params,
        querystring: SaveQuery,
        ...forkSchema,
      },
    },
    async (request, reply) => {
      const { id, name, about } = await host.machine(request.params.machine);
      return runJob<ForkResult>(
        service,
        request,
        reply,
        storeOf(request.query, about),
        { kind: 'fork', from: { machine: id }, ...request.body },
        name,
      );
    },
  );
}

/** What a network is connected to. Errors: HttpError 403 (a tap or a port that the start has not named). */
function connect(net: Net, { taps, ports }: Pick<Service, 'taps' | 'ports'>): NetRequest {
  const { mac = null } = net;
  if ('tap' in net) return { mac, backend: tapAllowedBy(taps, net.tap) };
  const forwards = net.user.forwards ?? [];
  for (const { hostPort } of forwards)
    if (ports === null || hostPort < ports.from || hostPort > ports.to)
      throw new HttpError(
        403,
        `the port ${hostPort} is not allowed`,
        'Start the server with --ports FROM-TO, for example --ports 8000-8099.',
      );
  return {
    mac,
    backend: { kind: 'user', forwards: forwards.map((each) => ({ ...each, address: '127.0.0.1' })) },
  };
}

/** The error with the name that the client knows. What the server itself refuses has no other. */
function renamed(error: LivesnapError, path: string, shown: string): LivesnapError {
  if (error instanceof HttpError) return error;
  const { code, message, hint, damage } = error;
  return new LivesnapError(code, message.replaceAll(path, shown), {
    ...(hint === undefined ? {} : { hint: hint.replaceAll(path, shown) }),
    damage,
    cause: error,
  });
}
