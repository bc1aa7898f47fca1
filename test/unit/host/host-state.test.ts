/** Changes between two states of a host. */
import assert from 'node:assert/strict';
import { changesBetween, type HostState, type MachineFacts } from '../../../src/host/host-state.js';
import type { SnapshotSummary } from '../../../src/page-stream.js';

const machine = (id: string, state: MachineFacts['state'] = 'running', name = id): MachineFacts => ({
  ...{ id, name, labels: {}, pid: 1, memoryBytes: 4096, cpus: 1, state, snapshot: null },
  startedAt: '2026-01-01T00:00:00.000Z',
  failedAt: state === 'failed' ? '2026-01-01T01:00:00.000Z' : null,
  reason: state === 'failed' ? 'its process died' : null,
});

const snapshot = (id: string, ...tags: string[]): SnapshotSummary =>
  ({ id, tags, kind: 'file', vm: null, parent: null }) as unknown as SnapshotSummary;

const state = (machines: MachineFacts[], snapshots: SnapshotSummary[] = []): HostState => ({
  machines,
  snapshots,
});

function changes(before: HostState, after: HostState): string[] {
  return changesBetween(before, after).map((change) => {
    if ('machine' in change) return `${change.type} ${change.machine.name}`;
    const tags =
      change.type === 'snapshot-tagged' ? ` +${change.addedTags.join()} -${change.removedTags.join()}` : '';
    return `${change.type} ${change.snapshot.id}${tags}`;
  });
}

describe('the changes of a host', () => {
  it('are none when nothing has changed', () => {
    const same = state([machine('a'), machine('b', 'failed')], [snapshot('s', 'x')]);
    assert.deepEqual(changes(same, structuredClone(same)), []);
  });

  it('tell of machines that start, pause, resume, fail and end', () => {
    const none = state([]);
    const running = state([machine('a')]);
    const paused = state([machine('a', 'paused')]);
    const failed = state([machine('a', 'failed')]);
    assert.deepEqual(changes(none, running), ['machine-started a']);
    assert.deepEqual(changes(none, paused), ['machine-started a', 'machine-paused a']);
    assert.deepEqual(changes(none, failed), ['machine-started a', 'machine-failed a']);
    assert.deepEqual(changes(running, paused), ['machine-paused a']);
    assert.deepEqual(changes(paused, running), ['machine-resumed a']);
    assert.deepEqual(changes(running, failed), ['machine-failed a']);
    assert.deepEqual(changes(failed, none), ['machine-ended a']);
  });

  it('tell of machines that get other labels, or are saved', () => {
    const one = machine('a');
    const labelled = { ...one, labels: { course: 'os' } };
    assert.deepEqual(changes(state([one]), state([labelled])), ['machine-changed a']);
    assert.deepEqual(changes(state([one]), state([{ ...one, snapshot: 's' }])), ['machine-changed a']);
    assert.deepEqual(changes(state([one]), state([{ ...labelled, state: 'paused' }])), ['machine-paused a']);
  });

  it('tell two machines of one name apart, and first of the end of the old one', () => {
    assert.deepEqual(
      changes(state([machine('1', 'paused', 'web')]), state([machine('2', 'running', 'web')])),
      ['machine-ended web', 'machine-started web'],
    );
  });

  it('tell of snapshots that are saved, removed and tagged', () => {
    assert.deepEqual(
      changes(
        state([], [snapshot('a', 'x', 'y'), snapshot('b')]),
        state([], [snapshot('a', 'x', 'z'), snapshot('c', 'y')]),
      ),
      ['snapshot-removed b', 'snapshot-tagged a +z -y', 'snapshot-saved c'],
    );
  });
});
