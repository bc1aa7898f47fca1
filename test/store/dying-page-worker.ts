/**
 * A page Worker that dies when it gets its second batch. It ends, or throws an error, as the file `end`, `throw` or
 * `throw-own` beside the store says. It takes that file away first, so that one Worker of several dies, and only once:
 * a second one could die while the next job already runs on it.
 */
import { unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parentPort } from 'node:worker_threads';
import { LivesnapError } from '../../src/errors.js';
import type { JobRequest } from '../../src/store/worker/page-jobs.js';
import '../../src/store/worker/page-worker.js';

let dir = '';
let batches = 0;
// Runs after the listener of the real Worker, which has answered by then.
parentPort!.on('message', ({ name, input }: JobRequest) => {
  if (name === 'readBegin') dir = (input as { dir: string }).dir;
  if (name !== 'readBatch' || ++batches < 2) return;
  const isAsked = (how: string): boolean => {
    try {
      unlinkSync(join(dirname(dir), how));
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
      throw error;
    }
  };
  if (isAsked('throw')) throw new TypeError('a bug in the page Worker');
  if (isAsked('throw-own'))
    throw new LivesnapError('SYSTEM', 'a package cannot be loaded', { hint: 'npm rebuild' });
  if (isAsked('end')) process.exit(3);
});
