/**
 * The block device against the file that its bytes are in: the same requests by a driver of the device, and by pread and
 * pwrite in as many threads as the I/O engine has.
 *
 *     node dist/bench/block.js [--rounds N] [--mib N] [--only TEXT]
 *
 * There is no guest: this thread is both the driver, on plain memory, and the device thread. So a request costs what the
 * rings, the device, its disk and the I/O engine cost, without the exits of a vCPU. Everything is in the page cache.
 */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { waitForCompletion } from '../src/native/block-io.js';
import { projectRoot } from '../src/native/project-root.js';
import { Store } from '../src/store/store.js';
import type { DiskRequest } from '../src/vmm/disk/disk-config.js';
import { MachineDisks } from '../src/vmm/disk/machine-disks.js';
import { DiskDevices } from '../src/vmm/disk-devices.js';
import { Register } from '../src/vmm/virtio/mmio-transport.js';
import { argumentsOf } from '../test/arguments.js';
import { DriverTwin, type TwinQueue, VirtioRig } from '../test/unit/vmm/virtio/driver-twin.js';
import { hostLoad, mixedMemory, spread, threadMicroseconds } from './figures.js';

const MIB = 1 << 20;
const ENGINE_THREADS = 4;
/** In the RAM of the rig, after its rings. */
const HEADERS_GPA = 0x18_0000;
const STATUS_GPA = 0x19_0000;
const BUFFERS_GPA = 0x20_0000;
const QUEUE_SIZE = 256;
const WRITABLE = 2;
const NEXT = 1;

interface Pattern {
  readonly name: string;
  readonly write: boolean;
  readonly bytes: number;
  readonly depth: number;
  readonly offsets: readonly number[];
}

function patterns(sizeBytes: number): Pattern[] {
  const sequential = Array.from({ length: sizeBytes / (128 << 10) }, (_, i) => i * (128 << 10));
  let n = 1;
  const random = Array.from({ length: 4096 }, () => {
    n = (Math.imul(n, 1103515245) + 12345) >>> 0;
    return ((n >>> 4) % (sizeBytes / 4096)) * 4096;
  });
  return [1, 16].flatMap((depth) =>
    [false, true].flatMap((write) => {
      const verb = write ? 'write' : 'read';
      return [
        {
          name: `sequential ${verb} of 128 KiB, depth ${depth}`,
          write,
          depth,
          bytes: 128 << 10,
          offsets: sequential,
        },
        { name: `random ${verb} of 4 KiB, depth ${depth}`, write, depth, bytes: 4096, offsets: random },
      ];
    }),
  );
}

/** A driver that keeps `depth` requests in flight. Its descriptors are written once. */
class LoadDriver {
  readonly #rig: VirtioRig;
  readonly #queue: TwinQueue;
  readonly #pattern: Pattern;
  readonly #header = Buffer.alloc(16);
  readonly #status = new Uint8Array(1);
  readonly #free: number[];
  #next = 0;
  #lastUsed = 0;

  constructor(rig: VirtioRig, pattern: Pattern) {
    this.#rig = rig;
    this.#pattern = pattern;
    const twin = new DriverTwin(rig, { queueSize: QUEUE_SIZE });
    twin.start();
    this.#queue = twin.queues[0]!;
    this.#free = Array.from({ length: pattern.depth }, (_, slot) => slot);
    for (const slot of this.#free) {
      this.#describe(3 * slot, HEADERS_GPA + slot * 16, 16, NEXT);
      const flags = NEXT | (pattern.write ? 0 : WRITABLE);
      this.#describe(3 * slot + 1, BUFFERS_GPA + slot * (128 << 10), pattern.bytes, flags);
      this.#describe(3 * slot + 2, STATUS_GPA + slot, 1, WRITABLE);
    }
    this.#header.writeUInt32LE(pattern.write ? 1 : 0);
  }

  #describe(index: number, gpa: number, length: number, flags: number): void {
    const bytes = Buffer.alloc(16);
    bytes.writeBigUInt64LE(BigInt(gpa), 0);
    bytes.writeUInt32LE(length, 8);
    bytes.writeUInt16LE(flags, 12);
    bytes.writeUInt16LE(index + 1, 14);
    this.#rig.ram.ram.write(this.#queue.descriptorTable + index * 16, bytes);
  }

  /** Offers what there is room for, and delivers the doorbell. */
  submit(): void {
    const { offsets } = this.#pattern;
    while (this.#free.length > 0 && this.#next < offsets.length) {
      const slot = this.#free.pop()!;
      const sector = offsets[this.#next++]! / 512;
      this.#header.writeUInt32LE(sector, 8);
      this.#rig.ram.ram.write(HEADERS_GPA + slot * 16, this.#header);
      this.#queue.makeAvailable(3 * slot);
    }
    this.#queue.kick();
    this.#rig.hear();
  }

  /** Takes the answers if there was an interrupt. Returns their number. */
  collect(): number {
    if (!this.#rig.takeInterrupt()) return 0;
    this.#rig.write(Register.interruptAck, this.#rig.read(Register.interruptStatus));
    const { ram } = this.#rig.ram;
    const { usedRing, availRing, size } = this.#queue;
    let count = 0;
    for (; ram.load16(usedRing + 2) !== this.#lastUsed; count++) {
      const slot = ram.load16(usedRing + 4 + (this.#lastUsed % size) * 8) / 3;
      this.#lastUsed = (this.#lastUsed + 1) & 0xffff;
      ram.store16(availRing + 4 + size * 2, this.#lastUsed);
      ram.read(STATUS_GPA + slot, this.#status);
      if (this.#status[0] !== 0) throw new Error(`a request failed with status ${this.#status[0]}`);
      this.#free.push(slot);
    }
    return count;
  }
}

interface Run {
  readonly ms: number;
  /** Of the thread that is driver and device thread, for each request. */
  readonly threadUs: number;
  readonly wakeUps: number;
}

async function throughDevice(
  request: DiskRequest,
  pattern: Pattern,
  dir: string,
  store: Store,
): Promise<Run> {
  const disks = await MachineDisks.open([request], { overlayDir: dir, openStore: async () => store }, 0);
  const devices = new DiskDevices(
    { disks: disks.list.map(({ setup }) => setup), engine: disks.engine!, staging: disks.staging! },
    (problem) => {
      throw new Error(problem);
    },
  );
  const rig = VirtioRig.start(devices.descriptors[0]!);
  try {
    devices.start(rig.machine);
    const completed = rig.machine.watches[0]!.ready;
    const driver = new LoadDriver(rig, pattern);
    const startedUs = threadMicroseconds();
    const started = performance.now();
    const count = pattern.offsets.length;
    let wakeUps = 0;
    driver.submit();
    for (let done = 0; done < count; ) {
      waitForCompletion(disks.engine!, -1);
      wakeUps++;
      completed();
      done += driver.collect();
      driver.submit();
    }
    const ms = performance.now() - started;
    return { ms, threadUs: (threadMicroseconds() - startedUs) / count, wakeUps: wakeUps / count };
  } finally {
    disks.close();
    rig.close();
  }
}

/** What a thread of the comparison does: every n-th request of the pattern. */
interface Share {
  readonly path: string;
  readonly write: boolean;
  readonly bytes: number;
  readonly offsets: readonly number[];
}

function doShare({ path, write, bytes, offsets }: Share): void {
  const fd = openSync(path, 'r+');
  const buffer = Buffer.alloc(bytes, 1);
  parentPort!.once('message', () => {
    for (const offset of offsets)
      if (write) writeSync(fd, buffer, 0, bytes, offset);
      else readSync(fd, buffer, 0, bytes, offset);
    closeSync(fd);
    parentPort!.postMessage('done');
  });
  parentPort!.postMessage('ready');
}

async function onFile(path: string, { write, bytes, depth, offsets }: Pattern): Promise<number> {
  const threads = Math.min(depth, ENGINE_THREADS);
  const message = (worker: Worker): Promise<unknown> =>
    new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  const workers = Array.from({ length: threads }, (_, i) => {
    const share: Share = { path, write, bytes, offsets: offsets.filter((_, n) => n % threads === i) };
    return new Worker(new URL(import.meta.url), { workerData: share });
  });
  await Promise.all(workers.map(message));
  const started = performance.now();
  const done = workers.map(message);
  for (const worker of workers) worker.postMessage('go');
  await Promise.all(done);
  const ms = performance.now() - started;
  await Promise.all(workers.map((worker) => worker.terminate()));
  return ms;
}

async function run(): Promise<void> {
  const { values } = argumentsOf('bench:block', {
    options: {
      rounds: { type: 'string', default: '5' },
      mib: { type: 'string', default: '64' },
      only: { type: 'string', default: '' },
    },
  });
  const dir = mkdtempSync(join(projectRoot, 'dist/bench-block-'));
  const sizeBytes = Number(values.mib) * MIB;
  const image = join(dir, 'image');
  const store = Store.open(join(dir, 'store'), { write: true, create: true });
  try {
    writeFileSync(image, mixedMemory(sizeBytes));
    const { id } = await store.put(image, { tags: [], name: null });
    const file = { kind: 'file', path: image } as const;
    const layers: Record<string, DiskRequest> = {
      'path=': { source: file, mode: 'rw', onError: 'pause' },
      cow: { source: file, mode: 'cow', onError: 'pause' },
      'snapshot=': { source: { kind: 'snapshot', snapshot: id, region: null }, mode: 'rw', onError: 'pause' },
    };
    console.log(`an image of ${values.mib} MiB; the load of the host: ${hostLoad()}`);
    console.log(`${''.padEnd(48)}throughput / the file's     µs of the device thread   wake-ups`);
    for (const pattern of patterns(sizeBytes).filter(({ name }) => name.includes(values.only))) {
      const found = new Map(
        Object.keys(layers).map((name) => [name, { ratios: [] as number[], runs: [] as Run[] }]),
      );
      const fileMs: number[] = [];
      for (let round = 0; round < Number(values.rounds); round++) {
        const ms = await onFile(image, pattern);
        fileMs.push(ms);
        for (const [name, request] of Object.entries(layers)) {
          const measured = await throughDevice(request, pattern, dir, store);
          found.get(name)!.runs.push(measured);
          found.get(name)!.ratios.push(ms / measured.ms);
        }
      }
      const perRequest = fileMs.map((ms) => (ms * 1e3) / pattern.offsets.length);
      console.log(`${pattern.name}; the file: ${spread(perRequest, 1)} µs`);
      for (const [name, { ratios, runs }] of found) {
        const figures = [
          spread(ratios, 2),
          spread(
            runs.map(({ threadUs }) => threadUs),
            1,
          ),
          spread(
            runs.map(({ wakeUps }) => wakeUps),
            2,
          ),
        ];
        console.log(`    ${name.padEnd(44)}${figures.map((text) => text.padEnd(26)).join('')}`.trimEnd());
      }
    }
    console.log(`the load of the host: ${hostLoad()}`);
  } finally {
    store.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

if (isMainThread) await run();
else doShare(workerData as Share);
