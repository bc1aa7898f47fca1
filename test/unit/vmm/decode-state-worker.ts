/** Decodes the machine state that it is given, with the heap that it is given, and says how it was refused. */
import { parentPort, workerData } from 'node:worker_threads';
import type { LivesnapError } from '../../../src/errors.js';
import { decodeMachineState } from '../../../src/vmm/machine-state.js';

try {
  decodeMachineState(workerData);
} catch (error) {
  const { code, message } = error as LivesnapError;
  parentPort!.postMessage([code, message]);
}
