/** What the API takes and gives. Written once: fastify checks requests with these, TypeScript types the handlers, and OpenAPI is made of them. */

import { type Static, type TSchema, Type } from 'typebox';
import { Problem } from './problem.js';

const CLOSED = { additionalProperties: false };
/** As much as any request needs. */
const MAX_NAME_LENGTH = 64;
const MAX_TEXT_LENGTH = 4096;
const MAX_DISKS = 8;
const MAX_NETS = 8;
export const MAX_FORKS = 100;

const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);
/** A list in an answer. */
export const list = <T extends TSchema>(item: T) => Type.Unsafe<readonly Static<T>[]>(Type.Array(item));
const bytes = (description: string) => Type.Integer({ minimum: 0, description });
const time = (description: string) => Type.String({ format: 'date-time', description });
const name = (description: string) => Type.String({ minLength: 1, maxLength: MAX_NAME_LENGTH, description });
const snapshotRef = Type.String({
  minLength: 1,
  maxLength: MAX_NAME_LENGTH,
  description: 'A tag, an ID, or the beginning of an ID.',
});

export const Labels = Type.Record(Type.String(), Type.String({ maxLength: 255 }), {
  maxProperties: 64,
  description: 'Keys and values.',
});
const lifetimeMs = nullable(
  Type.Integer({ minimum: 1, description: 'The machine ends after this time. Null: it has no end.' }),
);

// Stores

const storeName = Type.Optional(
  Type.String({
    minLength: 1,
    maxLength: MAX_NAME_LENGTH,
    description: 'A store of GET /v1/stores. Default: the first.',
  }),
);
/** The query of requests that use a store. */
export const StoreQuery = Type.Object({ store: storeName }, CLOSED);
/** The same of those that are sent with a ticket. */
export const DownloadQuery = Type.Object(
  {
    store: storeName,
    ticket: Type.Optional(Type.String({ maxLength: 256, description: 'Of POST /v1/tickets.' })),
  },
  CLOSED,
);
/** The query of requests that save a machine. */
export const SaveQuery = Type.Object(
  {
    store: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: MAX_NAME_LENGTH,
        description:
          'A store of GET /v1/stores. Default: the one that the machine was started with, or else the first.',
      }),
    ),
  },
  CLOSED,
);

export const NamedStore = Type.Object(
  {
    name: Type.String(),
    default: Type.Boolean({ description: 'Whether requests that name no store use it.' }),
  },
  { $id: 'NamedStore' },
);

// Machines

export const Machine = Type.Object(
  {
    id: nullable(Type.String({ description: 'Never changes. Null: the machine is starting.' })),
    name: Type.String(),
    labels: Labels,
    pid: nullable(Type.Integer()),
    state: Type.Enum(['running', 'paused', 'stopped', 'starting', 'unresponsive', 'failed', 'gone']),
    reason: nullable(Type.String({ description: 'Why it failed, or why the host paused it.' })),
    memoryBytes: nullable(bytes('Memory of the guest.')),
    cpus: nullable(Type.Integer()),
    touchedBytes: nullable(bytes('Of its memory, what the host has given so far.')),
    cpuSeconds: nullable(Type.Number({ description: 'Processor time of its process.' })),
    dirtyBytes: nullable(
      bytes('Of RAM and disks, what may differ from `snapshot`. Null: there is none, or it is not known.'),
    ),
    startedAt: nullable(time('When it was started or restored.')),
    endsAt: nullable(time('When its lifetime ends.')),
    failedAt: nullable(time('When it failed. Null: it has not, or its process died without a word.')),
    snapshot: nullable(
      Type.String({ description: 'The snapshot that it was last saved to or restored from.' }),
    ),
  },
  { $id: 'Machine' },
);
export type Machine = Static<typeof Machine>;

/** A file for a machine: from the store, or of the host where the server allows it. */
export const FileSource = Type.Union([
  Type.Object({ snapshot: snapshotRef }, { ...CLOSED, description: 'A file that was stored with `put`.' }),
  Type.Object(
    { path: Type.String({ minLength: 1, maxLength: MAX_TEXT_LENGTH }) },
    { ...CLOSED, description: 'A file of the host, below a directory that `serve --allow` names.' },
  ),
]);
export type FileSource = Static<typeof FileSource>;

const ofAnyDisk = {
  mode: Type.Optional(
    Type.Enum(['rw', 'ro', 'cow'], { description: 'Default: rw. With cow, writes end with the machine.' }),
  ),
  onError: Type.Optional(Type.Enum(['pause', 'report'])),
};

export const Disk = Type.Union([
  Type.Object(
    {
      snapshot: snapshotRef,
      region: Type.Optional(Type.String({ minLength: 1, maxLength: MAX_NAME_LENGTH })),
      ...ofAnyDisk,
    },
    { ...CLOSED, description: 'A disk whose contents are in the store.' },
  ),
  Type.Object(
    { path: Type.String({ minLength: 1, maxLength: MAX_TEXT_LENGTH }), ...ofAnyDisk },
    { ...CLOSED, description: 'A raw image on the host, below a directory that `serve --allow` names.' },
  ),
]);
export type Disk = Static<typeof Disk>;

const mac = Type.Optional(
  Type.String({ pattern: '^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$', description: 'Default: a random one.' }),
);
const port = Type.Integer({ minimum: 1, maximum: 65_535 });

/** A network of a machine. */
export const Net = Type.Union([
  Type.Object(
    { tap: Type.String({ minLength: 1, maxLength: 15 }), mac },
    { ...CLOSED, description: 'A tap that `serve --tap` names.' },
  ),
  Type.Object(
    {
      user: Type.Object(
        {
          forwards: Type.Optional(
            Type.Array(Type.Object({ hostPort: port, guestPort: port }, CLOSED), { maxItems: 64 }),
          ),
        },
        CLOSED,
      ),
      mac,
    },
    { ...CLOSED, description: 'A network without root. Forwards listen on 127.0.0.1 alone.' },
  ),
]);
export type Net = Static<typeof Net>;

export const StartBody = Type.Object(
  {
    kernel: FileSource,
    initrd: Type.Optional(FileSource),
    cmdline: Type.Optional(Type.String({ maxLength: MAX_TEXT_LENGTH })),
    memoryBytes: Type.Optional(
      Type.Integer({ minimum: 4096, description: 'A multiple of 4096. Default: 256 MiB.' }),
    ),
    cpus: Type.Optional(Type.Integer({ minimum: 1, description: 'Default: 1.' })),
    disks: Type.Optional(Type.Array(Disk, { maxItems: MAX_DISKS })),
    nets: Type.Optional(Type.Array(Net, { maxItems: MAX_NETS })),
    balloon: Type.Optional(Type.Boolean()),
    name: Type.Optional(name('Default: a free one.')),
    labels: Type.Optional(Labels),
    lifetimeMs: Type.Optional(lifetimeMs),
  },
  CLOSED,
);

export const ChangeBody = Type.Object(
  { labels: Type.Optional(Labels), lifetimeMs: Type.Optional(lifetimeMs) },
  { ...CLOSED, minProperties: 1, description: '`labels` replaces all labels.' },
);

const then = Type.Enum(['resume', 'pause', 'stop']);
const tag = Type.String({ minLength: 1, maxLength: 64 });

export const SaveBody = Type.Object(
  {
    tags: Type.Optional(
      Type.Array(tag, { maxItems: 64, description: 'A tag in use moves to this snapshot.' }),
    ),
    then: Type.Optional(then),
  },
  CLOSED,
);

export const StopBody = Type.Object(
  {
    force: Type.Optional(Type.Boolean({ description: 'End it at once, without asking the guest.' })),
    discard: Type.Optional(Type.Boolean({ description: 'Do not save disks that came from a snapshot.' })),
    timeoutMs: Type.Optional(
      Type.Integer({ minimum: 0, maximum: 86_400_000, description: 'Default: 10 s.' }),
    ),
  },
  CLOSED,
);

export const StopResult = Type.Object(
  {
    name: Type.String(),
    state: Type.Enum(['stopped', 'gone']),
    how: Type.Optional(Type.Enum(['poweredOff', 'ended'])),
    reason: Type.Optional(nullable(Type.String())),
    lostSaves: Type.Optional(Type.Integer()),
  },
  { $id: 'StopResult' },
);

export const SaveResult = Type.Object(
  {
    id: Type.String(),
    tags: list(Type.String()),
    movedTags: list(Type.Object({ tag: Type.String(), from: Type.String() })),
    parent: nullable(Type.String()),
    pages: Type.Integer(),
    zeroPages: Type.Integer(),
    unchangedPages: Type.Integer(),
    newChunks: Type.Integer(),
    reusedChunks: Type.Integer(),
    storedBytes: bytes('What the save added to the store.'),
    pauseMs: Type.Number({ description: 'How long no vCPU ran.' }),
    saveMs: Type.Number(),
  },
  { $id: 'SaveResult' },
);

export const RestoreBody = Type.Object(
  {
    name: Type.Optional(name('Default: a free one, like that of the original.')),
    labels: Type.Optional(Labels),
    lifetimeMs: Type.Optional(lifetimeMs),
    asNew: Type.Optional(Type.Boolean({ description: 'A clone, to run beside the original.' })),
    clock: Type.Optional(Type.Enum(['host', 'saved'])),
  },
  CLOSED,
);

export const ForkBody = Type.Object(
  {
    count: Type.Integer({ minimum: 1, maximum: MAX_FORKS }),
    name: Type.Optional(name('The machines are called NAME-1, NAME-2 and so on.')),
    labels: Type.Optional(Labels),
    lifetimeMs: Type.Optional(lifetimeMs),
  },
  CLOSED,
);

export const ForkResult = list(
  Type.Union([
    Type.Object({ machine: Type.Object({ id: Type.String(), name: Type.String() }) }),
    Type.Object({
      error: Type.Object({ code: Type.String(), message: Type.String(), hint: nullable(Type.String()) }),
    }),
  ]),
);

export type ForkResult = Static<typeof ForkResult>;

// Snapshots

export const Snapshot = Type.Object(
  {
    id: Type.String(),
    tags: list(Type.String()),
    kind: Type.Enum(['machine', 'file', 'disk']),
    vm: nullable(Type.String({ description: "The machine's name, or the file's." })),
    parent: nullable(Type.String()),
    createdAt: time('When it was saved.'),
    memoryBytes: bytes('Memory of the guest, or the size of the file.'),
    diskBytes: bytes('Size of all disks.'),
    storedBytes: bytes('What the save added to the store.'),
    labels: Labels,
    pauseMs: nullable(
      Type.Number({
        description: 'How long the save paused the machine. Null: it did not run, or is not known.',
      }),
    ),
  },
  { $id: 'Snapshot' },
);

export const SnapshotDetails = Type.Intersect(
  [
    Snapshot,
    Type.Object({
      uniqueBytes: bytes('What deleting it and gc would free.'),
      verifiedAt: nullable(time('When check last read all of its data. Null: it has not, or found damage.')),
      regions: list(
        Type.Object({
          name: Type.String(),
          sizeBytes: bytes('Its size.'),
          nonZeroPages: Type.Integer(),
          changedPages: nullable(Type.Integer({ description: "Pages that differ from the parent's." })),
        }),
      ),
      machine: Type.Unknown({ description: 'The configuration of the machine.' }),
      host: Type.Unknown({ description: 'Where it was saved.' }),
    }),
  ],
  { $id: 'SnapshotDetails' },
);

export const Fit = Type.Object(
  {
    fits: Type.Boolean({ description: 'Whether it can be restored on this host.' }),
    findings: list(
      Type.Object({
        level: Type.Enum(['refuse', 'warn']),
        thing: Type.String(),
        need: Type.String(),
        have: Type.String(),
        help: Type.String(),
      }),
    ),
  },
  { $id: 'Fit' },
);

export const Difference = Type.Object(
  {
    region: Type.String(),
    otherRegion: Type.String(),
    sizeBytes: list(nullable(Type.Integer())),
    pages: Type.Integer(),
    bytes: bytes('The sizes of these pages.'),
    ranges: list(Type.Object({ fromBytes: Type.Integer(), toBytes: Type.Integer() })),
  },
  { $id: 'Difference' },
);

export const TagBody = Type.Object({ snapshot: snapshotRef }, CLOSED);

export const Tagged = Type.Object(
  {
    id: Type.String(),
    tags: list(Type.String()),
    movedTags: list(Type.Object({ tag: Type.String(), from: Type.String() })),
  },
  { $id: 'Tagged' },
);

export const Stats = Type.Object(
  {
    snapshots: Type.Integer(),
    logicalBytes: bytes('Sizes of all snapshots together.'),
    nonZeroBytes: bytes('Of that, pages that are not zero.'),
    uniqueBytes: bytes('Of that, different pages.'),
    storedBytes: bytes('Files of the store without the index.'),
    indexBytes: bytes('The index.'),
    deadBytes: bytes('What gc would free.'),
    chunks: Type.Integer(),
    packs: Type.Integer(),
    packBytes: bytes('Files with data.'),
    verifiedBytes: bytes('Of that, what check has read without finding damage.'),
    verifiedAt: nullable(time('When check read the oldest part of that.')),
    ratio: Type.Number(),
  },
  { $id: 'Stats' },
);

// Jobs

export const Job = Type.Object(
  {
    id: Type.String(),
    kind: Type.Enum(['save', 'fork', 'gc', 'check', 'forget', 'copy', 'import']),
    subject: Type.String({
      description: 'The machine, the other store of a copy, or else the store. Empty: the only store.',
    }),
    state: Type.Enum(['running', 'done', 'failed', 'cancelled']),
    startedAt: time('When it was started.'),
    endedAt: nullable(time('When it ended.')),
    progress: nullable(Type.Object({ doneBytes: Type.Integer(), totalBytes: nullable(Type.Integer()) })),
    result: Type.Unknown({ description: 'What the request with `Prefer: wait` answers. Null: it has none.' }),
    problem: nullable(Problem),
  },
  { $id: 'Job' },
);
export type Job = Static<typeof Job>;

/** Of the routes that fork a machine or a snapshot. */
export const forkSchema = {
  description:
    'Answered with a job. Its result, and the answer with `Prefer: wait`, has for each clone a machine or a problem.',
  body: ForkBody,
  response: { 200: ForkResult, 202: Job },
};

const keepCount = Type.Optional(Type.Integer({ minimum: 0 }));
const span = Type.Object(
  {
    years: Type.Integer({ minimum: 0 }),
    months: Type.Integer({ minimum: 0 }),
    days: Type.Integer({ minimum: 0 }),
    hours: Type.Integer({ minimum: 0 }),
  },
  CLOSED,
);
const snapshotRefs = Type.Array(snapshotRef, { maxItems: 1000 });

export const GcBody = Type.Object(
  {
    maxRepackBytes: Type.Optional(bytes('Rewrite at most so much of packs that are partly unreferenced.')),
    recompress: Type.Optional(Type.Boolean({ description: 'Make packs smaller with LZ4-HC.' })),
    idle: Type.Optional(Type.Boolean({ description: 'Rewrite packs only while the host is idle.' })),
    dryRun: Type.Optional(Type.Boolean({ description: 'Change nothing. Answered when it is done.' })),
  },
  CLOSED,
);

export const CheckBody = Type.Object(
  {
    readData: Type.Optional(
      Type.Union([
        Type.Boolean(),
        Type.Object({ part: Type.Integer({ minimum: 1 }), of: Type.Integer({ minimum: 1 }) }, CLOSED),
      ]),
    ),
  },
  { ...CLOSED, description: '`readData`: also verify the data, all of it or a part.' },
);

export const ForgetBody = Type.Object(
  {
    keep: Type.Object(
      {
        ...{ last: keepCount, hourly: keepCount, daily: keepCount, weekly: keepCount },
        ...{ monthly: keepCount, yearly: keepCount, within: Type.Optional(span) },
        tags: Type.Optional(Type.Array(Type.String({ minLength: 1, maxLength: 64 }), { maxItems: 64 })),
      },
      { ...CLOSED, description: 'The rules of `livesnap forget`. One at least.' },
    ),
    snapshots: Type.Optional(snapshotRefs),
    groupBy: Type.Optional(
      Type.Array(
        Type.Union([
          Type.Object({ by: Type.Literal('machine') }, CLOSED),
          Type.Object(
            { by: Type.Literal('label'), label: Type.String({ minLength: 1, maxLength: 64 }) },
            CLOSED,
          ),
        ]),
        { maxItems: 8 },
      ),
    ),
    prune: Type.Optional(Type.Boolean({ description: 'Run gc afterwards.' })),
    dryRun: Type.Optional(Type.Boolean({ description: 'Remove nothing. Answered when it is done.' })),
  },
  CLOSED,
);

const remoteName = Type.String({ description: 'A name that `serve --remote NAME=ADDRESS` has given.' });
export const CopyBody = Type.Union([
  Type.Object({ to: remoteName, snapshots: Type.Optional(snapshotRefs) }, CLOSED),
  Type.Object({ from: remoteName, snapshots: Type.Optional(snapshotRefs) }, CLOSED),
]);

// What is watched

const HostAbout = Type.Object({
  name: Type.String(),
  version: Type.String({ description: 'Of livesnap.' }),
  kvm: Type.String({ description: 'KVM, KVM (PVM), or why there is none.' }),
  cpus: Type.Integer(),
  memoryBytes: bytes('Memory of the host.'),
  storeDir: Type.String({ description: 'The path of the store.' }),
  store: Type.String({ description: 'The name of the store.' }),
  stores: list(Type.String({ description: 'The names of all stores, the default first.' })),
});
export type HostAbout = Static<typeof HostAbout>;

export const Usage = Type.Record(
  Type.String(),
  Type.Object({
    touchedBytes: Type.Integer(),
    cpuSeconds: Type.Number(),
    dirtyBytes: nullable(Type.Integer()),
  }),
);
export type Usage = Static<typeof Usage>;

export const Overview = Type.Object(
  {
    host: HostAbout,
    machines: list(Machine),
    snapshots: list(Snapshot),
    jobs: list(Job),
    store: nullable(Stats),
    uniqueBytes: nullable(
      Type.Record(Type.String(), nullable(Type.Integer()), {
        description:
          'By snapshot: what deleting it and gc would free. Null: it is damaged, or not known yet.',
      }),
    ),
  },
  { $id: 'Overview' },
);
export type Overview = Static<typeof Overview>;

// Sign-in

export const Grant = Type.Object(
  { secret: Type.String(), expiresAt: time('When it ends.') },
  { $id: 'Grant' },
);
export const CodeBody = Type.Object({ page: Type.Optional(Type.Boolean()) }, CLOSED);
export const CodeGrant = Type.Object({
  secret: Type.String(),
  expiresAt: time('When it ends.'),
  url: Type.Optional(Type.String({ description: 'Where the page is.' })),
  file: Type.Optional(Type.String({ description: 'The file that signs a browser in.' })),
});
export const SessionBody = Type.Object({ code: Type.String({ minLength: 1, maxLength: 256 }) }, CLOSED);
export const TicketBody = Type.Object(
  {
    path: Type.String({
      pattern: '^/v1/[^?#]{1,1000}([?]store=[A-Za-z0-9][A-Za-z0-9_.-]{0,62})?$',
      description: 'What is downloaded, with the store if it is not the default one.',
    }),
  },
  CLOSED,
);

/** Answers that others refer to, by their `$id`. */
export const SHARED = [
  ...[
    Machine,
    StopResult,
    SaveResult,
    Snapshot,
    SnapshotDetails,
    Fit,
    Difference,
    Tagged,
    Stats,
    Job,
    Overview,
    Grant,
  ],
] as const;
