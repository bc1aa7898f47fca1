/** The snapshots of the store, or of one machine, as a tree that can be filtered. */
import { useMemo, useState } from 'preact/hooks';
import { formatBytes, formatCount, formatDuration, shortId } from '../../format.js';
import { formatAge } from '../state/age.js';
import type { HostModel } from '../state/host-model.js';
import { type TreeRow, treeRows } from '../state/snapshot-tree.js';
import type { Snapshot } from '../state/types.js';
import { machinePath } from './machine-row.js';
import { ROW_PX, RowWindow } from './row-window.js';

export const snapshotPath = (id: string): string => `#/snapshots/${id}`;

/** The name that a person knows. */
export const nameOf = ({ tags, id }: Snapshot): string => tags[0] ?? shortId(id);

interface Props {
  readonly title: string;
  readonly snapshots: readonly Snapshot[];
  readonly model: HostModel;
  readonly nowMs: number;
}

export function SnapshotList({ title, snapshots, model, nowMs }: Props) {
  const [filter, setFilter] = useState('');
  const [unfolded, setUnfolded] = useState<ReadonlySet<string>>(new Set());
  const { machines, uniqueBytes } = model;
  const rows = useMemo(
    () => treeRows(snapshots, machines, { filter, unfolded }),
    [snapshots, machines, filter, unfolded],
  );
  const toggle = (key: string): void => {
    const next = new Set(unfolded);
    if (!next.delete(key)) next.add(key);
    setUnfolded(next);
  };
  return (
    <section aria-label={title}>
      <div class="section">
        <h2>{title}</h2>
        <span class="num quiet">{formatCount(snapshots.length)}</span>
        <span class="tools">
          <input
            type="search"
            placeholder="filter"
            aria-label={`Filter ${title}`}
            data-filter
            value={filter}
            onInput={(event) => setFilter(event.currentTarget.value)}
          />
        </span>
      </div>
      <div class="row snap columns" aria-hidden="true">
        <span />
        <span>age</span>
        <span class="stored">stored</span>
        <span>frees</span>
        <span class="pause">pause</span>
      </div>
      {rows.length === 0 && <p class="quiet">{filter === '' ? 'Never saved.' : 'No snapshot matches.'}</p>}
      <RowWindow
        count={rows.length}
        label={title}
        row={(i) => (
          <Row
            key={rows[i]!.key}
            {...{ row: rows[i]!, top: i * ROW_PX, uniqueBytes, nowMs, toggle, isFlat: filter !== '' }}
          />
        )}
      />
    </section>
  );
}

interface RowProps {
  readonly row: TreeRow;
  readonly top: number;
  readonly uniqueBytes: HostModel['uniqueBytes'];
  readonly nowMs: number;
  readonly isFlat: boolean;
  readonly toggle: (key: string) => void;
}

function Row({ row, top, uniqueBytes, nowMs, isFlat, toggle }: RowProps) {
  const frees = (ids: readonly Snapshot[]): string => {
    if (uniqueBytes === null) return '…';
    const all = ids.map(({ id }) => uniqueBytes[id]);
    if (all.some((bytes) => bytes === undefined)) return '…';
    if (all.some((bytes) => bytes === null)) return 'damaged';
    return formatBytes(all.reduce<number>((total, bytes) => total + (bytes ?? 0), 0));
  };
  if (row.kind === 'folded') {
    const newest = row.snapshots.at(-1)!;
    return (
      <li class="row snap" style={{ top: `${top}px` }}>
        <span class="name">
          <span class="tree" aria-hidden="true">
            {`    ${row.lines}`}
          </span>
          <button
            type="button"
            class="plain quiet"
            data-row
            aria-expanded={row.isOpen}
            onClick={() => toggle(row.key)}
          >
            {formatCount(row.snapshots.length)} untagged {row.isOpen ? '▾' : '▸'}
          </button>
        </span>
        <span class="num quiet">{formatAge(newest.createdAt, nowMs)}</span>
        <span class="num quiet stored">{formatBytes(sumOf(row.snapshots))}</span>
        <span class="num quiet">{row.snapshots.length === 1 ? frees(row.snapshots) : ''}</span>
        <span class="num quiet pause">{row.snapshots.length === 1 ? pauseOf(newest) : ''}</span>
      </li>
    );
  }
  const { snapshot, machines, title, lines } = row;
  return (
    <li class="row snap" style={{ top: `${top}px` }}>
      <span class="name">
        {!isFlat && (
          <span class="tree" aria-hidden="true">
            {title === null ? `    ${lines}` : ''}
          </span>
        )}
        <a href={snapshotPath(snapshot.id)} data-row>
          {title !== null && <strong>{title} </strong>}
          {title !== null && !isFlat && (
            <span class="tree" aria-hidden="true">
              {lines}
            </span>
          )}
          {snapshot.tags.length === 0 && <span class="num">{shortId(snapshot.id)}</span>}
          {snapshot.tags.map((tag) => (
            <span class="tag" key={tag}>
              {tag}
            </span>
          ))}
        </a>
        {snapshot.kind !== 'machine' && <span class="quiet"> {snapshot.kind}</span>}
        {machines.map((machine) => (
          <a
            class="here"
            href={machinePath(machine)}
            key={machine.id}
            title={`${machine.name} is at this snapshot`}
          >
            <span aria-hidden="true">─● </span>
            {machine.name}
          </a>
        ))}
      </span>
      <span class="num">{formatAge(snapshot.createdAt, nowMs)}</span>
      <span class="num stored">{formatBytes(snapshot.storedBytes)}</span>
      <span class={`num ${frees([snapshot]) === 'damaged' ? 'bad' : ''}`}>{frees([snapshot])}</span>
      <span class="num pause">{pauseOf(snapshot)}</span>
    </li>
  );
}

const pauseOf = ({ pauseMs }: Snapshot): string => (pauseMs === null ? '' : formatDuration(pauseMs));

const sumOf = (snapshots: readonly Snapshot[]): number =>
  snapshots.reduce((total, { storedBytes }) => total + storedBytes, 0);
