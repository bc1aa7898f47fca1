/** A process that terminates Workers while the addon throws in them (addon.test.ts). */
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { tryLock } from '../../../src/native/locks.js';

const WORKERS = 60;

if (isMainThread) {
  for (let i = 0; i < WORKERS; i++) {
    const worker = new Worker(new URL(import.meta.url));
    await new Promise((resolve) => worker.once('message', resolve));
    await worker.terminate();
  }
} else {
  parentPort!.postMessage('runs');
  for (;;)
    try {
      tryLock(-1, 'shared');
    } catch {
      // The error is the purpose.
    }
}
