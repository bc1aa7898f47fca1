/** A store thread that dies when it is given its second batch: by an error when the region is named `throws`, otherwise by ending. */
import { parentPort } from 'node:worker_threads';
import '../../../src/machine/store-thread.js';
import type { ToStoreThread } from '../../../src/machine/store-thread-messages.js';

let batches = 0;
parentPort!.on('message', (message: ToStoreThread) => {
  if (message.type !== 'batch' || message.run === null || ++batches < 2) return;
  const { name } = message.regions[0]!;
  // By then it has asked for the next batch.
  setTimeout(() => {
    if (name === 'throws') throw new TypeError('a mistake in the store thread');
    process.exit(3);
  }, 10);
});
