/** A process that ends, or reaches a limit, with I/O in flight (block-io.test.ts). Its argument names the case. */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import {
  closeIoEngine,
  createIoEngine,
  submitRead,
  submitWrite,
  takeCompletions,
  waitForCompletion,
} from '../../../src/native/block-io.js';
import { createMemory } from '../../../src/native/memory.js';

const [, , mode, path] = process.argv as [string, string, string, string];
const BYTES = 16 << 20;

/** Fills an engine with more reads than can have ended when the next statement runs. */
function flood(): number {
  const engine = createIoEngine(4, 512);
  const memory = createMemory(BYTES);
  const fd = openSync(path, 'r');
  for (let id = 0; id < 512; id++) submitRead(engine, id, fd, 0, new Float64Array([memory, 0, BYTES]));
  return engine;
}

switch (mode) {
  case 'exit':
    flood();
    waitForCompletion(flood(), -1);
    process.exit(7);
    break;
  case 'close': {
    const engine = flood();
    waitForCompletion(engine, -1);
    closeIoEngine(engine);
    break;
  }
  case 'worker': {
    // The addon is loaded in the Worker only, so that it ends with the only user of the addon.
    const worker = new Worker(new URL(import.meta.url), { argv: ['in-worker', path] });
    worker.once('message', () => {
      void worker.terminate().then(() => {
        const isLoaded = readFileSync('/proc/self/maps', 'latin1').includes('livesnap.node');
        process.exitCode = isLoaded ? 7 : 1;
      });
    });
    break;
  }
  case 'in-worker': {
    const { parentPort } = await import('node:worker_threads');
    flood();
    parentPort!.postMessage('running');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    break;
  }
  case 'hang': {
    // A read of the kernel's log waits at its end. There are fewer messages than the buffer holds.
    const engine = createIoEngine();
    const fd = openSync('/dev/kmsg', 'r');
    const memory = createMemory(64 << 20);
    submitRead(engine, 1, fd, 0, new Float64Array([memory, 0, 64 << 20]));
    waitForCompletion(engine, 500); // one that has not begun would be dropped
    const isQuiet = [closeIoEngine(engine, 300), closeIoEngine(engine, 0)];
    process.exit(isQuiet.some(Boolean) ? 1 : 7);
    break;
  }
  case 'size-limit': {
    const engine = createIoEngine(1);
    const fd = openSync(path, 'r+');
    submitWrite(engine, 1, fd, 1 << 20, new Float64Array([createMemory(4096), 0, 4096]));
    waitForCompletion(engine, -1);
    const completions = new Int32Array(2);
    takeCompletions(engine, completions);
    closeIoEngine(engine);
    closeSync(fd);
    process.exitCode = completions[1];
    break;
  }
}
