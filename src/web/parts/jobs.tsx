/** Jobs that run, and the last ones that failed. */
import { send } from '../api.js';
import type { Job } from '../state/types.js';
import { Do } from './buttons.js';
import { percent } from './machine-row.js';

export const titleOf = ({ kind, subject }: Job): string => `${kind}${subject === '' ? '' : ` ${subject}`}`;

export const forget = ({ id }: Job): Promise<unknown> => send('DELETE', `/v1/jobs/${id}`);

export function RunningJobs({ jobs }: { jobs: readonly Job[] }) {
  if (jobs.length === 0) return null;
  return (
    <ul class="plain-list">
      {jobs.map((job) => (
        <li class="row job" key={job.id}>
          <span>{job.kind}</span>
          <span class="name">{job.subject || 'the store'}</span>
          <span class="progress num">
            <Meter job={job} /> {percent(job)}
          </span>
          <span class="actions">
            <Do label="Cancel" about={titleOf(job)} work={() => forget(job)} />
          </span>
        </li>
      ))}
    </ul>
  );
}

function Meter({ job: { progress, kind } }: { job: Job }) {
  const part = progress?.totalBytes ? progress.doneBytes / progress.totalBytes : 0;
  return (
    <div
      class="meter"
      role="progressbar"
      aria-label={`Progress of ${kind}`}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={Math.round(part * 100)}
    >
      <span style={{ width: `${(part * 100).toFixed(1)}%` }} />
    </div>
  );
}
