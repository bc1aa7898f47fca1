import assert from 'node:assert/strict';
import {
  afterEvent,
  failedMachines,
  type HostModel,
  liveMachines,
  modelOf,
  totalCpu,
  unverifiedPercent,
} from '../../../../src/web/state/host-model.js';
import { busyHost, EMPTY, idOf, job, machine, snapshot } from '../../../web/made-up.js';

const later = (model: HostModel, ...events: [type: string, data: unknown, atMs?: number][]): HostModel =>
  events.reduce<HostModel | null>((now, [type, data, atMs = 0]) => afterEvent(now, type, data, atMs), model)!;

describe('the model of the page', () => {
  it('is nothing before the first state, and then follows each kind of event', () => {
    assert.equal(afterEvent(null, 'machine-started', { machine: machine('a', 1) }, 0), null);
    let model = afterEvent(null, 'state', EMPTY, 0)!;
    model = later(
      model,
      ['machine-started', { machine: machine('a', 1) }],
      ['machine-started', { machine: machine('b', 2) }],
      ['machine-paused', { machine: machine('a', 1, { state: 'paused' }) }],
      ['snapshot-saved', { snapshot: snapshot(1) }],
      ['snapshot-saved', { snapshot: snapshot(2) }],
      ['snapshot-tagged', { snapshot: snapshot(1, { tags: ['x'] }) }],
      ['job', { job: job() }],
      ['unknown', { anything: 1 }],
    );
    assert.deepEqual(
      model.machines.map(({ name, state }) => [name, state]),
      [
        ['a', 'paused'],
        ['b', 'running'],
      ],
    );
    assert.deepEqual(
      model.snapshots.map(({ tags }) => tags),
      [['x'], []],
    );
    assert.equal(model.jobs.length, 1);
    model = later(
      model,
      ['machine-ended', { machine: machine('b', 2) }],
      ['snapshot-removed', { snapshot: snapshot(1) }],
      ['job-removed', { id: job().id }],
      ['store', { snapshots: 1 }],
      ['unique-bytes', { [idOf(2)]: 9 }],
    );
    assert.deepEqual([model.machines.length, model.snapshots.length, model.jobs.length], [1, 1, 0]);
    assert.deepEqual([model.store!.snapshots, model.uniqueBytes![idOf(2)]], [1, 9]);
  });

  it('measures the processor use between looks that are a second apart or more', () => {
    const id = idOf(9001);
    const usage = (cpuSeconds: number) => ({ [id]: { cpuSeconds, touchedBytes: 4096, dirtyBytes: 0 } });
    const first = later(modelOf({ ...EMPTY, machines: [machine('a', 1)] }), ['usage', usage(10), 0]);
    assert.equal(totalCpu(first), null);
    assert.equal(first.machines[0]!.touchedBytes, 4096);
    const soon = later(first, ['usage', usage(10.4), 400]);
    assert.equal(totalCpu(soon), null, 'too soon');
    const second = later(soon, ['usage', usage(11), 2000]);
    assert.equal(totalCpu(second), 0.5);
    const many = later(
      second,
      ...Array.from(
        { length: 100 },
        (_, i) => ['usage', usage(11 + i), 4000 + i * 2000] as [string, unknown, number],
      ),
    );
    assert.equal(many.cpu[id]!.length, 60);
    const again = later(many, ['state', { ...EMPTY, machines: [machine('a', 1)] }]);
    assert.equal(again.cpu[id]!.length, 60, 'a reconnection forgets nothing');
  });

  it('tells machines that live from those that want attention', () => {
    const model = modelOf(busyHost(30));
    assert.deepEqual(
      failedMachines(model).map(({ state }) => state),
      ['failed'],
    );
    assert.equal(liveMachines(model).length, 5);
  });

  it('tells what no check has read, when a snapshot is older than a week and no check runs', () => {
    const host = busyHost();
    const nowMs = Date.now();
    assert.equal(unverifiedPercent(host, nowMs), 41);
    const young = host.snapshots.filter(({ kind }) => kind === 'machine');
    assert.equal(unverifiedPercent({ ...host, snapshots: young }, nowMs), null);
    assert.equal(unverifiedPercent({ ...host, jobs: [job({ kind: 'check' })] }, nowMs), null);
    assert.equal(unverifiedPercent({ ...host, store: null }, nowMs), null);
    const store = { ...host.store!, verifiedBytes: host.store!.packBytes };
    assert.equal(unverifiedPercent({ ...host, store }, nowMs), null);
    assert.equal(
      unverifiedPercent({ ...host, store: { ...store, packBytes: 0, verifiedBytes: 0 } }, nowMs),
      null,
    );
  });
});
