/**
 * The process of one machine. Told over IPC what to run, it takes over the run directory whose lock it inherited,
 * starts or restores the machine, reports that it is ready and lives as long as the machine does. stdout and
 * stderr are the log in the run directory.
 *
 * SIGTERM, SIGINT and SIGHUP stop the machine. Until `ready` was said, the end of the starter does, too.
 */
import { LivesnapError } from '../errors.js';
import type { MachineHandle } from '../vmm/machine-types.js';
import { asLivesnapError, ControlServer } from './api.js';
import type { LaunchReport, LaunchRequest } from './launch.js';
import { LOCK_FD } from './launch.js';
import { ClaimedRunDirectory } from './run-directory.js';
import { VmHost } from './vm-host.js';

const PROGRESS_INTERVAL_MS = 100;

const log = (sentence: string) => console.log(`${new Date().toISOString()} ${sentence}`);

const report = (message: LaunchReport) =>
  new Promise<void>((resolve) => {
    if (process.connected) process.send!(message, undefined, undefined, () => resolve());
    else resolve();
  });

async function startMachine({ origin }: LaunchRequest): Promise<MachineHandle> {
  if (origin.kind === 'start') {
    const { Machine } = await import('../vmm/machine.js');
    return Machine.start(origin.config);
  }
  const { Store } = await import('../store/store.js');
  const store = Store.open(origin.from, { write: false });
  try {
    const snapshot = await store.openSnapshot(origin.snapshot);
    try {
      // The store's Workers start while this is loaded.
      const { Machine } = await import('../vmm/machine.js');
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
    store.close();
  }
}

async function run(request: LaunchRequest): Promise<number> {
  const directory = new ClaimedRunDirectory(request.root, request.name, LOCK_FD);
  const server = new ControlServer();
  let host: VmHost | null = null;

  const giveUp = (why: string) => {
    log(`ending: ${why}`);
    if (host !== null)
      host.stop().catch((error: Error) => log(`the machine could not be stopped: ${error.message}`));
    else directory.remove().finally(() => process.exit(1));
  };
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => giveUp(signal));
  const starterGone = () => giveUp('its starter is gone');
  process.on('disconnect', starterGone);

  try {
    const { Store } = await import('../store/store.js');
    await server.listenUnix(directory.socket);
    if (request.port !== null) await server.listenLoopback(request.port);
    const machine = await startMachine(request);
    for (const notice of machine.notices) log(notice);
    host = new VmHost(machine, {
      directory,
      server,
      storeDir: request.storeDir,
      port: request.port,
      openStore: (dir) => Store.open(dir, { write: true, create: true }),
      log,
    });
    await host.open();
    log(`running, ${machine.config.cpus} vCPUs, ${machine.config.memoryBytes} bytes of memory`);
    process.off('disconnect', starterGone);
    await report({ ready: host.describe() });
    if (process.connected) process.disconnect();
    const end = await host.ended;
    return end.kind === 'failed' ? 1 : 0;
  } catch (thrown) {
    const error = asLivesnapError(thrown);
    console.error(thrown);
    if (host !== null) {
      await host.stop();
      await host.ended;
    }
    await server.close(0);
    await directory.remove();
    await report({ error: error.toJSON() });
    return 1;
  }
}

process.umask(0o077);
for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error: unknown) => {
    console.error(error);
    const { code, message, hint } = asLivesnapError(error);
    report({ error: { code, message, hint: hint ?? null } }).finally(() => process.exit(1));
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
