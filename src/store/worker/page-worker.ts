/** The entry of a page Worker. */
import { parentPort, workerData } from 'node:worker_threads';
import { useIdleTime } from '../../native/idle-time.js';
import { pageOpsLoaded } from '../../native/pages.js';
import { useCancelFlag } from '../disk/waits.js';
import { toJobError } from './job-errors.js';
import { runJob } from './job-runner.js';
import type { JobRequest, JobResponse, PageWorkerData } from './page-jobs.js';

const { cancelFlag, isIdle } = workerData as PageWorkerData;
if (isIdle) useIdleTime();
useCancelFlag(cancelFlag);

const respond = (response: JobResponse): void => parentPort!.postMessage(response);

function run({ id, name, input }: JobRequest): void {
  try {
    respond({ id, output: runJob(name, input as never) });
  } catch (error) {
    respond({ id, error: toJobError(error) });
  }
}

// The port keeps the jobs that arrive before. A failure ends the Worker, and its jobs fail with the reason.
void pageOpsLoaded.then(() => parentPort!.on('message', run));
