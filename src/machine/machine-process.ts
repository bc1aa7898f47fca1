/**
 * The process of one machine: its main thread. It loads its code and starts its threads, and waits for a
 * {@link LaunchRequest} over IPC. Then it takes over the run directory whose lock it was given, starts or restores the
 * machine, reports that it is ready, and lives as long as the machine.
 *
 * - Before the request it has nothing that must be given back. If its starter ends, it ends.
 * - stdout and stderr are the log in the run directory, which comes with the request.
 * - Nothing blocks this thread. Devices and the store have threads of their own.
 * - SIGTERM, SIGINT and SIGHUP stop the machine. So does the end of the starter before the machine is ready. After that,
 *   the starter keeps the channel open while it wants to learn how the machine ends (machine-service.ts).
 */
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { baseDirectory } from '../environment.js';
import { asLivesnapError, LivesnapError } from '../errors.js';
import { receiveFiles, replaceFile } from '../native/passed-files.js';
import type { Progress } from '../page-stream.js';
import { DeviceThreadClient } from '../vmm/device-thread-client.js';
import { nearestDirectory } from '../vmm/disk/scratch-file.js';
import { profileOfThisHost } from '../vmm/fit/this-host.js';
import { prepareVm } from '../vmm/kvm/vm.js';
import type { MachineHandle } from '../vmm/machine-types.js';
import { WorkingSets } from '../vmm/memory/working-set.js';
import { ControlServer } from './control-server.js';
import { FILES_FD, type LaunchReport, type LaunchRequest } from './launch-messages.js';
import { ignoreStreamErrors, log as processLog } from './log.js';
import { AT_ONCE, MachineService } from './machine-service.js';
import { countPassed, unpackDisks } from './passed-disks.js';
import { ClaimedRunDirectory, runDirectoryError } from './run-directory.js';
import { type StoreProxy, StoreThread } from './store-thread-client.js';

const PROGRESS_INTERVAL_MS = 100;

/** How long a dying process may take to report and record why. */
const LAST_REPORT_MS = 2000;

const log = processLog.write;

const report = (message: LaunchReport) =>
  new Promise<void>((resolve) => {
    if (process.connected) process.send!(message, undefined, undefined, () => resolve());
    else resolve();
  });

/** Tells the starter, not too often. */
function reportProgress(): Progress {
  let lastMs = performance.now();
  return (doneBytes, totalBytes) => {
    if (performance.now() - lastMs < PROGRESS_INTERVAL_MS) return;
    lastMs = performance.now();
    void report({ progress: { doneBytes, totalBytes } });
  };
}

/** In the user's caches; null where these are unknown. */
function workingSets(): WorkingSets | null {
  const caches = baseDirectory('XDG_CACHE_HOME');
  return caches === null ? null : new WorkingSets(join(caches, 'livesnap', 'working-sets'), log);
}

async function startMachine(request: LaunchRequest, stores: StoreThread): Promise<MachineHandle> {
  const { origin, storeDir } = request;
  const overlayDir = request.overlayDir ?? nearestDirectory(storeDir);
  if (origin.kind === 'start') {
    const { Machine } = await import('../vmm/machine.js');
    let opened: StoreProxy | null = null;
    const openStore = async (): Promise<StoreProxy> => {
      opened = await stores.open(storeDir, { write: false });
      return opened;
    };
    try {
      return await Machine.create(origin.config, {
        disks: origin.disks,
        nets: origin.nets ?? [],
        host: { overlayDir, openStore, progress: reportProgress() },
      });
    } finally {
      await (opened as StoreProxy | null)?.close();
    }
  }
  const opening = stores.open(origin.from, { write: false });
  opening.catch(() => {}); // awaited below
  // Loads while the store's threads start.
  const { Machine } = await import('../vmm/machine.js');
  const store = await opening;
  try {
    const snapshot = await store.openSnapshot(origin.snapshot);
    try {
      return await Machine.restore(snapshot, {
        store: store.key,
        overlayDir,
        nets: origin.nets ?? [],
        asNew: origin.asNew ?? false,
        fill: origin.fill ?? 'auto',
        workingSets: workingSets(),
        progress: reportProgress(),
        clock: origin.clock,
      });
    } finally {
      snapshot.close();
    }
  } finally {
    await store.close();
  }
}

/** Ends the process of a machine that does not run yet. Its starter learns why. */
async function endBeforeReady(directory: ClaimedRunDirectory): Promise<void> {
  const error = new LivesnapError('MACHINE_GONE', `the machine ${directory.name} was stopped before it ran`);
  await Promise.allSettled([directory.remove(), report({ error: error.toJSON() })]);
  process.exit(1);
}

/** Null until the machine is ready. */
let service: MachineService | null = null;

/** Takes the files that came before the request. Returns the lock of the run directory, and the files of disks. */
function takeFiles(disks: number): readonly [lock: number, ...disks: number[]] {
  const [lock, logFile, ...fds] = receiveFiles(FILES_FD, 2 + disks) as [number, number, ...number[]];
  for (const stream of [1, 2]) replaceFile(logFile, stream);
  for (const fd of [logFile, FILES_FD]) closeSync(fd);
  ignoreStreamErrors();
  return [lock, ...fds];
}

async function run(sent: LaunchRequest, stores: StoreThread): Promise<number> {
  const [lock, ...fds] = takeFiles(countPassed(sent.origin));
  const request = { ...sent, origin: unpackDisks(sent.origin, fds) };
  const directory = new ClaimedRunDirectory(request.root, request.name, lock);
  process.title = `livesnap machine-process.js ${request.name}`;
  const server = new ControlServer({ name: request.name, onStop: () => end('POST /stop') });

  const end = (why: string) => {
    log(`ending: ${why}`);
    if (service !== null)
      service
        .stop(AT_ONCE)
        .catch((error: Error) => {
          log(`the machine ends without its disks: ${error.message}`);
          return service?.stop({ ...AT_ONCE, discard: true });
        })
        .catch((error: Error) => log(`the machine could not be stopped: ${error.message}`));
    else void endBeforeReady(directory);
  };
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => end(signal));
  const starterGone = () => end('its starter has ended');
  process.on('disconnect', starterGone);
  let noStarter = () => {};
  const starterDone = new Promise<void>((resolve) => {
    noStarter = resolve;
    process.once('disconnect', resolve);
  });

  try {
    await server.listenUnix(directory.socket).catch((error) => {
      throw runDirectoryError(directory.path, 'write to', error);
    });
    const port = request.port && (await server.listenLoopback(request.port.number, request.port.token));
    const machine = await startMachine(request, stores);
    for (const notice of machine.notices) log(notice);
    service = new MachineService(machine, {
      directory,
      server,
      storeDir: request.storeDir,
      port,
      stores,
      log,
      starterDone,
      starter: request.starter,
      labels: request.labels,
      lifetimeMs: request.lifetimeMs ?? null,
    });
    await service.open();
    log(`running, ${machine.config.cpus} vCPUs, ${machine.config.memoryBytes} bytes of memory`);
    process.off('disconnect', starterGone);
    await report({ ready: service.describe() });
    const { kind } = await service.ended;
    return kind === 'failed' ? 1 : 0;
  } catch (thrown) {
    const error = service?.end?.kind === 'failed' ? service.end.error : asLivesnapError(thrown);
    processLog.writeError(thrown);
    noStarter();
    if (service !== null) {
      await service.stop({ ...AT_ONCE, discard: true });
      await service.ended;
    }
    await server.close(0);
    await directory
      .remove()
      .catch((left: Error) => log(`the run directory was not removed: ${left.message}`));
    await report({ error: error.toJSON() });
    return 1;
  }
}

/** Ends the process after an unexpected error. The log, the record and the starter get the reason. */
async function die(cause: unknown): Promise<void> {
  const error = asLivesnapError(cause);
  processLog.writeError(cause);
  log(`the process ends: ${error.message}`);
  setTimeout(() => process.exit(1), LAST_REPORT_MS);
  await Promise.allSettled([service?.recordFailure(error.message), report({ error: error.toJSON() })]);
  process.exit(1);
}

/** Starts and loads what a request of this kind will need. A failure is met again, and reported, when it is needed. */
function prepare(kind: string | undefined, stores: StoreThread): void {
  if (kind === 'restore') stores.start();
  try {
    prepareVm();
    if (kind === 'restore') profileOfThisHost();
  } catch {}
  DeviceThreadClient.startEarly();
  import('../vmm/machine.js').catch(() => {});
}

process.umask(0o077);
// Node would open its inspector, and with it the process, to every user of the host.
process.on('SIGUSR1', () => log('SIGUSR1 is ignored'));
let dying = false;
for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error: unknown) => {
    // Errors while it is dying add nothing.
    if (!dying) void die(error);
    dying = true;
  });
}
if (process.send === undefined) {
  const error = new LivesnapError('USAGE', 'machine-process.js cannot be run by hand', {
    hint: 'Use livesnap start.',
  });
  process.stderr.write(`livesnap: ${error.message}\n${error.hint}\n`);
  process.exitCode = error.exitStatus;
} else {
  const endWithStarter = () => process.exit(1);
  process.once('disconnect', endWithStarter);
  const stores = new StoreThread({ log });
  prepare(process.argv[2], stores);
  process.once('message', (request: LaunchRequest) => {
    process.off('disconnect', endWithStarter);
    run(request, stores).then((status) => process.exit(status));
  });
}
