/** Decodes a machine state within the heap of this Worker. Posts the code and message of the error. */
import { parentPort, workerData } from 'node:worker_threads';
import type { LivesnapError } from '../../../src/errors.js';
import { decodeMachineState } from '../../../src/vmm/machine-state.js';

try {
  decodeMachineState(workerData);
} catch (error) {
  const { code, message } = error as LivesnapError;
  parentPort!.postMessage([code, message]);
}
