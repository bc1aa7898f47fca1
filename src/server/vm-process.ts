/**
 * The process of one machine. Told over IPC what to run, it takes over the run directory whose lock it inherited,
 * starts or restores the machine, reports that it is ready and lives as long as the machine does. stdout and
 * stderr are the log in the run directory. Nothing blocks this thread: the machine's devices have a thread, and the store.
 *
 * SIGTERM, SIGINT and SIGHUP stop the machine. Until `ready` was said, the end of the starter does, too. Afterwards
 * the starter keeps the channel open for as long as it wants to be able to ask the machine how it ended (VmHost).
 */
import { LivesnapError } from '../errors.js';
import type { MachineHandle } from '../vmm/machine-types.js';
import { asLivesnapError, ControlServer } from './control-api.js';
import type { LaunchReport, LaunchRequest } from './launch.js';
import { LOCK_FD } from './launch.js';
import { ignoreStreamErrors, log as processLog } from './log.js';
import { ClaimedRunDirectory, runDirectoryError } from './run-directory.js';
import { StoreThread } from './store-thread-client.js';
import { VmHost } from './vm-host.js';

const PROGRESS_INTERVAL_MS = 100;

/** How long the reason of a failure may take to be told and noted. */
const LAST_WORDS_MS = 2000;

const log = processLog.write;

const report = (message: LaunchReport) =>
  new Promise<void>((resolve) => {
    if (process.connected) process.send!(message, undefined, undefined, () => resolve());
    else resolve();
  });

async function startMachine({ origin }: LaunchRequest, stores: StoreThread): Promise<MachineHandle> {
  if (origin.kind === 'start') {
    const { Machine } = await import('../vmm/machine.js');
    return Machine.create(origin.config);
  }
  const opening = stores.open(origin.from, { write: false });
  opening.catch(() => {}); // met below
  // The store's threads start while this is loaded.
  const { Machine } = await import('../vmm/machine.js');
  const store = await opening;
  try {
    const snapshot = await store.openSnapshot(origin.snapshot);
    try {
      let saidMs = performance.now();
      return await Machine.restore(snapshot, (doneBytes, totalBytes) => {
        if (performance.now() - saidMs < PROGRESS_INTERVAL_MS) return;
        saidMs = performance.now();
        void report({ progress: { doneBytes, totalBytes } });
      });
    } finally {
      snapshot.close();
    }
  } finally {
    await store.close();
  }
}

/** The machine of this process, once it runs. */
let host: VmHost | null = null;

async function run(request: LaunchRequest): Promise<number> {
  const directory = new ClaimedRunDirectory(request.root, request.name, LOCK_FD);
  const server = new ControlServer();
  const stores = new StoreThread({ log });

  const giveUp = (why: string) => {
    log(`ending: ${why}`);
    if (host !== null)
      host.stop().catch((error: Error) => log(`the machine could not be stopped: ${error.message}`));
    else directory.remove().finally(() => process.exit(1));
  };
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => giveUp(signal));
  const starterGone = () => giveUp('its starter is gone');
  process.on('disconnect', starterGone);
  let noStarter = () => {};
  const starterDone = new Promise<void>((resolve) => {
    noStarter = resolve;
    process.once('disconnect', resolve);
  });

  try {
    if (request.origin.kind === 'restore') stores.start({ withWorkers: true });
    await server.listenUnix(directory.socket).catch((error) => {
      throw runDirectoryError(directory.path, error);
    });
    if (request.port !== null) await server.listenLoopback(request.port);
    const machine = await startMachine(request, stores);
    for (const notice of machine.notices) log(notice);
    host = new VmHost(machine, {
      directory,
      server,
      storeDir: request.storeDir,
      port: request.port,
      stores,
      log,
      starterDone,
    });
    await host.open();
    log(`running, ${machine.config.cpus} vCPUs, ${machine.config.memoryBytes} bytes of memory`);
    process.off('disconnect', starterGone);
    await report({ ready: host.describe() });
    stores.start({ withWorkers: false }); // so that the first save does not wait for it
    const end = await host.ended;
    return end.kind === 'failed' ? 1 : 0;
  } catch (thrown) {
    const error = host?.end?.kind === 'failed' ? host.end.error : asLivesnapError(thrown);
    processLog.writeError(thrown);
    noStarter();
    if (host !== null) {
      await host.stop();
      await host.ended;
    }
    await server.close(0);
    await directory.remove().catch((left: Error) => log(`the run directory stays: ${left.message}`));
    await report({ error: error.toJSON() });
    return 1;
  }
}

/** Says why the process cannot go on, in its log and to whoever may ask, and ends it. */
async function die(cause: unknown): Promise<void> {
  const error = asLivesnapError(cause);
  processLog.writeError(cause);
  log(`the process ends: ${error.message}`);
  setTimeout(() => process.exit(1), LAST_WORDS_MS);
  await Promise.allSettled([host?.noteFailure(error.message), report({ error: error.toJSON() })]);
  process.exit(1);
}

process.umask(0o077);
ignoreStreamErrors();
let dying = false;
for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error: unknown) => {
    // What fails on the way out has nothing to add.
    if (!dying) void die(error);
    dying = true;
  });
}
if (process.send === undefined) {
  const error = new LivesnapError('USAGE', 'vm-process is started by the command line, not by hand');
  process.stderr.write(`livesnap: ${error.message}\n`);
  process.exitCode = error.exitStatus;
} else {
  process.once('message', (request: LaunchRequest) => {
    run(request).then((status) => process.exit(status));
  });
}
