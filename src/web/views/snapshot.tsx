/** One snapshot: what it holds, what it costs, what can be done with it, and the map of its pages. */
import { useEffect, useState } from 'preact/hooks';
import { formatAgo, formatBytes, formatCount, formatDuration, formatTime, shortId } from '../../format.js';
import { get, send } from '../api.js';
import { PageMap } from '../map/page-map.js';
import { attempt, say } from '../notice.js';
import { Do, DoAfterAsking } from '../parts/buttons.js';
import { ForkForm } from '../parts/fork-form.js';
import { nameOf, snapshotPath } from '../parts/snapshot-list.js';
import type { HostModel } from '../state/host-model.js';
import type { Machine, Snapshot } from '../state/types.js';
import { inStore } from '../store-choice.js';

interface Region {
  readonly name: string;
  readonly sizeBytes: number;
  readonly nonZeroPages: number;
  readonly changedPages: number | null;
}

interface Details {
  readonly regions: readonly Region[];
  readonly verifiedAt: string | null;
}

interface Fit {
  readonly fits: boolean;
  readonly findings: readonly { readonly thing: string; readonly need: string; readonly have: string }[];
}

interface Props {
  readonly snapshot: Snapshot;
  readonly model: HostModel;
  readonly nowMs: number;
}

export function SnapshotView({ snapshot, model, nowMs }: Props) {
  const { id, tags, kind, vm, parent, createdAt, memoryBytes, diskBytes, storedBytes, pauseMs } = snapshot;
  const [details, setDetails] = useState<Details | null>(null);
  const [fit, setFit] = useState<Fit | null>(null);
  const [region, setRegion] = useState<string | null>(null);
  const [base, setBase] = useState<string | null>(null);
  const path = `/v1/snapshots/${id}`;
  useEffect(() => {
    setDetails(null);
    setRegion(null);
    setBase(null);
    setFit(null);
    if (kind === 'machine') void attempt(() => get<Fit>(`${path}/fit`)).then(setFit);
    void attempt(() => get<Details>(path)).then((found) => {
      setDetails(found);
      setRegion(found?.regions[0]?.name ?? null);
    });
  }, [path]);
  const frees = model.uniqueBytes?.[id];
  const freesText =
    frees === undefined ? '…' : frees === null ? 'unknown: it is damaged' : formatBytes(frees);
  const others = model.snapshots.filter((other) => other.id !== id && other.kind === kind);
  const parentSnapshot = model.snapshots.find((other) => other.id === parent);
  const restore = async (asNew: boolean): Promise<void> => {
    const machine = await send<Machine>('POST', `${path}/restore`, { asNew });
    say(`${machine.name} runs`);
  };
  return (
    <main>
      <div class="section">
        <h2 class="crumbs">
          <a href="#/">Snapshots</a> / {vm ?? kind} / {nameOf(snapshot)}
        </h2>
        <span class="tools">
          {kind === 'machine' && (
            <>
              <Do label="Restore" about={nameOf(snapshot)} work={() => restore(false)} />
              <Do label="Restore as new" about={nameOf(snapshot)} work={() => restore(true)} />
            </>
          )}
          <Do label="Export" about={nameOf(snapshot)} work={() => download(`${path}/export`)} />
          <DoAfterAsking
            label="Delete"
            about={nameOf(snapshot)}
            question={`Delete it${tags.length > 1 ? ` with ${formatCount(tags.length, 'tag')}` : ''}? Frees ${freesText}.`}
            work={async () => {
              await send('DELETE', path);
              location.hash = '#/';
            }}
          />
        </span>
      </div>
      <div class="columns2">
        <dl class="facts">
          <dt>Saved</dt>
          <dd>
            {formatTime(createdAt)}, {formatAgo(createdAt, nowMs)}
          </dd>
          <dt>Parent</dt>
          <dd>
            {parent === null ? (
              'none'
            ) : parentSnapshot === undefined ? (
              <span class="num quiet">{shortId(parent)}, deleted</span>
            ) : (
              <a href={snapshotPath(parent)}>{nameOf(parentSnapshot)}</a>
            )}
          </dd>
          {kind === 'machine' && (
            <>
              <dt>This host</dt>
              <dd class={fit?.fits === false ? 'bad' : ''}>{fit === null ? '…' : fitText(fit)}</dd>
            </>
          )}
          <dt>Tags</dt>
          <dd>
            <Tags snapshot={snapshot} />
          </dd>
        </dl>
        <dl class="facts">
          <dt>Size</dt>
          <dd class="num">
            {formatBytes(memoryBytes)}
            {diskBytes > 0 && ` and ${formatBytes(diskBytes)} of disks`}
          </dd>
          <dt>Stored</dt>
          <dd class="num">{formatBytes(storedBytes)} by its save</dd>
          {kind === 'machine' && (
            <>
              <dt>Pause</dt>
              <dd class="num">{pauseMs === null ? 'none' : formatDuration(pauseMs)}</dd>
            </>
          )}
          <dt>Verified</dt>
          <dd>{details === null ? '…' : verifiedText(details, nowMs)}</dd>
          <dt>Frees</dt>
          <dd class={`num ${frees === null ? 'bad' : ''}`}>{freesText}</dd>
          <dt>ID</dt>
          <dd class="num">{id}</dd>
        </dl>
      </div>
      {kind === 'machine' && <ForkForm path={path} about={nameOf(snapshot)} />}
      {details !== null && details.regions.length > 0 && region !== null && (
        <section aria-label="Pages">
          <div class="section">
            <h2>Pages</h2>
            <span class="tools">
              {details.regions.length > 1 && (
                <select
                  aria-label="Region"
                  value={region}
                  onChange={(event) => setRegion(event.currentTarget.value)}
                >
                  {details.regions.map(({ name, sizeBytes }) => (
                    <option key={name} value={name}>
                      {name}, {formatBytes(sizeBytes)}
                    </option>
                  ))}
                </select>
              )}
              <select
                aria-label="Changed since"
                value={base ?? ''}
                onChange={(event) => setBase(event.currentTarget.value || null)}
              >
                <option value="">{parent === null ? 'not compared' : 'changed since the parent'}</option>
                {others.toReversed().map((other) => (
                  <option key={other.id} value={other.id}>
                    changed since {nameOf(other)}
                    {other.vm === null ? '' : ` of ${other.vm}`}
                  </option>
                ))}
              </select>
            </span>
          </div>
          <PageMap key={`${id} ${region}`} snapshot={id} region={region} base={base} />
        </section>
      )}
    </main>
  );
}

const verifiedText = ({ verifiedAt }: Details, nowMs: number): string =>
  verifiedAt === null ? 'not yet' : `${formatTime(verifiedAt)}, ${formatAgo(verifiedAt, nowMs)}`;

const fitText = ({ fits, findings }: Fit): string =>
  [
    fits ? 'It can be restored here' : 'It cannot be restored here',
    ...findings.map(({ thing, need, have }) => `${thing}: needs ${need}, here ${have}`),
  ].join('. ');

/** A browser cannot send the session with a download, so it gets a ticket for this one. */
async function download(path: string): Promise<void> {
  const file = inStore(path);
  const { secret } = await send<{ secret: string }>('POST', '/v1/tickets', { path: file });
  location.href = `${file}${file.includes('?') ? '&' : '?'}ticket=${encodeURIComponent(secret)}`;
}

function Tags({ snapshot: { id, tags } }: { snapshot: Snapshot }) {
  const [tag, setTag] = useState('');
  const onSubmit = (event: Event): void => {
    event.preventDefault();
    void attempt(() => send('PUT', `/v1/tags/${encodeURIComponent(tag)}`, { snapshot: id })).then((done) => {
      if (done !== null) setTag('');
    });
  };
  return (
    <form class="ask" onSubmit={onSubmit}>
      {tags.map((each) => (
        <span class="tag" key={each}>
          {each}{' '}
          <button
            type="button"
            class="plain"
            aria-label={`Remove the tag ${each}`}
            onClick={() => void attempt(() => send('DELETE', `/v1/tags/${encodeURIComponent(each)}`))}
          >
            ✕
          </button>
        </span>
      ))}
      <input
        aria-label="New tag"
        placeholder="new tag"
        maxLength={64}
        required
        value={tag}
        onInput={(event) => setTag(event.currentTarget.value)}
      />
      <button type="submit">Tag</button>
    </form>
  );
}
