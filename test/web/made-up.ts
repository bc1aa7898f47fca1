/** Hosts that are made up for the tests of the page. */
import type { Job, Machine, Overview } from '../../src/server/schemas.js';

type Snapshot = Overview['snapshots'][number];

const MIB = 2 ** 20;
const HOUR_MS = 3_600_000;

const ago = (hours: number): string => new Date(Date.now() - hours * HOUR_MS).toISOString();
export const idOf = (number: number): string => number.toString(16).padStart(32, '0');

export const machine = (name: string, number: number, over: Partial<Machine> = {}): Machine => ({
  ...{
    id: idOf(9000 + number),
    name,
    labels: { course: 'os' },
    pid: 4000 + number,
    state: 'running',
    reason: null,
  },
  ...{
    memoryBytes: 512 * MIB,
    cpus: 2,
    touchedBytes: 212 * MIB,
    cpuSeconds: 10,
    dirtyBytes: over.snapshot == null ? null : 3 * MIB,
    startedAt: ago(30),
    endsAt: null,
    failedAt: over.state === 'failed' ? ago(0.05) : null,
  },
  snapshot: null,
  ...over,
});

export const snapshot = (number: number, over: Partial<Snapshot> = {}): Snapshot => ({
  ...{ id: idOf(number), tags: [], kind: 'machine', vm: 'web', parent: number > 1 ? idOf(number - 1) : null },
  ...{
    createdAt: ago(48 - number / 12),
    memoryBytes: 512 * MIB,
    diskBytes: 0,
    storedBytes: 3 * MIB + number * 999,
    labels: {},
    pauseMs: 1.2 + (number % 7) / 3,
  },
  ...over,
});

export const job = (over: Partial<Job> = {}): Job => ({
  ...{ id: idOf(7000), kind: 'gc', subject: '', state: 'running', startedAt: ago(0), endedAt: null },
  ...{ progress: { doneBytes: 41, totalBytes: 100 }, result: null, problem: null },
  ...over,
});

const HOST = {
  name: 'host-3',
  version: '0.1.0',
  kvm: 'KVM',
  cpus: 8,
  memoryBytes: 24 * 1024 * MIB,
  storeDir: '/var/lib/livesnap',
  store: 'main',
  stores: ['main'],
};

export const EMPTY: Overview = {
  ...{ host: HOST, machines: [], snapshots: [], jobs: [], store: null, uniqueBytes: null },
};

/** A chain with tags here and there, a branch, and files. */
function manySnapshots(count: number): Snapshot[] {
  const chain = Array.from({ length: count - 4 }, (_, i) =>
    snapshot(i + 1, {
      tags: i === 0 ? ['base', 'v1'] : i % 40 === 39 ? [`nightly-${Math.floor(i / 40)}`] : [],
    }),
  );
  return [
    ...chain,
    snapshot(8001, { parent: idOf(40), tags: ['experiment'], createdAt: ago(20) }),
    snapshot(8002, { parent: idOf(8001), createdAt: ago(19) }),
    snapshot(8003, { parent: null, vm: 'db', tags: ['db-base'], createdAt: ago(10) }),
    snapshot(8004, {
      parent: null,
      vm: 'debian.img',
      kind: 'file',
      pauseMs: null,
      tags: ['debian'],
      createdAt: ago(200),
    }),
  ].sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
}

/** Six machines and 500 snapshots; two machines and a job want attention. */
export function busyHost(count = 500): Overview {
  const snapshots = manySnapshots(count);
  return {
    host: HOST,
    machines: [
      machine('web', 1, { snapshot: idOf(count - 4) }),
      machine('web-2', 2, { state: 'paused', touchedBytes: 198 * MIB, snapshot: idOf(80) }),
      machine('db', 3, { snapshot: idOf(8003), cpus: 1, touchedBytes: 480 * MIB, startedAt: ago(3) }),
      machine('agent-1', 4, { touchedBytes: 64 * MIB, memoryBytes: 128 * MIB }),
      machine('agent-2', 5, { touchedBytes: 61 * MIB, memoryBytes: 128 * MIB }),
      machine('<img src=x onerror=alert(1)>', 6, {
        state: 'failed',
        reason: 'triple fault at 0xffff<b>',
        touchedBytes: null,
      }),
    ],
    snapshots,
    jobs: [
      job(),
      job({
        id: `${idOf(9001)}-3`,
        kind: 'save',
        subject: 'web',
        progress: { doneBytes: 7, totalBytes: 10 },
      }),
      job({
        ...{ id: idOf(7001), kind: 'copy', subject: 'backup', state: 'failed', endedAt: ago(1) },
        problem: {
          ...{ type: 'about:blank', title: 'Bad', status: 500, code: 'REMOTE_FAILED', hint: null },
          detail: 'backup did not answer',
        },
      }),
    ],
    store: {
      ...{
        snapshots: count,
        logicalBytes: 125 * 1024 * MIB,
        nonZeroBytes: 61 * 1024 * MIB,
        uniqueBytes: 6.9 * 1024 * MIB,
      },
      ...{
        storedBytes: 3400 * MIB,
        indexBytes: 90 * MIB,
        deadBytes: 120 * MIB,
        chunks: 1_800_000,
        packs: 55,
        packBytes: 3300 * MIB,
        verifiedBytes: 1947 * MIB,
        verifiedAt: ago(30),
        ratio: 37,
      },
    },
    uniqueBytes: Object.fromEntries(snapshots.map(({ id }, i) => [id, i * 12_345])),
  };
}

/** Answers of the store about one snapshot of the host. */
export const queriesOf = (overview: Overview) => ({
  find: (id: string) => overview.snapshots.find((each) => each.id === id)!,
  details: (id: string) => ({
    ...overview.snapshots.find((each) => each.id === id)!,
    uniqueBytes: 1,
    verifiedAt: ago(30.5),
    machine: null,
    host: null,
    regions: [
      { name: 'ram@0x0', sizeBytes: 512 * MIB, nonZeroPages: 60_000, changedPages: 1200 },
      { name: 'disk0', sizeBytes: 2048 * MIB, nonZeroPages: 90_000, changedPages: 0 },
    ],
  }),
  fit: () => ({ findings: [] }),
  /** Bands of all classes, with a few damaged pages. */
  map: (_id: string, { fromPage = 0, pages = 131_072 }: { fromPage?: number; pages?: number }) => {
    const cells = new Uint8Array(Math.min(pages, 131_072));
    for (let i = 0; i < cells.length; i++) {
      const page = fromPage + i;
      const band = Math.sin(page / 7000) + Math.sin(page / 611);
      cells[i] = (band > 0.9 ? 1 : band > -0.2 ? 2 : 0) | (page % 4096 > 3600 && band > 0 ? 8 : 0);
      if (page > 90_000 && page < 90_060) cells[i] = 4;
    }
    const count = (bit: number) => cells.filter((cell) => (cell & bit) !== 0).length;
    const [ownPages, sharedPages, damagedPages, changedPages] = [count(1), count(2), count(4), count(8)];
    return {
      ...{ region: 'ram@0x0', sizeBytes: 512 * MIB, fromPage, pages: cells.length, pagesPerCell: 1, cells },
      ...{ zeroPages: cells.length - ownPages - sharedPages - damagedPages },
      ...{ ownPages, sharedPages, damagedPages, changedPages },
    };
  },
});
