/** Positions in the log of events. */
import assert from 'node:assert/strict';
import { EventLog } from '../../../src/host/event-log.js';
import type { HostChange } from '../../../src/host/host-state.js';

const change = (name: string): HostChange => ({
  type: 'machine-started',
  machine: {
    ...{ id: name, name, labels: {}, state: 'running', reason: null, startedAt: '', failedAt: null },
    ...{ pid: 1, memoryBytes: 4096, cpus: 1, snapshot: null },
  },
});

const names = (log: EventLog<HostChange>, position: string): string[] | undefined =>
  log.since(position)?.map((each) => ('machine' in each ? each.machine.name : ''));

describe('the log of events', () => {
  it('gives what came after a position', () => {
    const log = new EventLog<HostChange>();
    const start = log.position;
    assert.deepEqual(names(log, start), []);
    log.append([change('a'), change('b')]);
    log.append([change('c')]);
    assert.deepEqual(names(log, start), ['a', 'b', 'c']);
    const [first, second] = log.since(start)!;
    assert.deepEqual(names(log, first!.position), ['b', 'c']);
    assert.deepEqual(names(log, second!.position), ['c']);
    assert.deepEqual(names(log, log.position), []);
  });

  it('keeps the latest changes, and does not know those before them', () => {
    const log = new EventLog<HostChange>(2);
    const start = log.position;
    log.append([change('a'), change('b')]);
    assert.deepEqual(names(log, start), ['a', 'b']);
    const [first] = log.since(start)!;
    log.append([change('c')]);
    assert.equal(log.since(start), null);
    assert.deepEqual(names(log, first!.position), ['b', 'c']);
  });

  it('knows no positions of other logs, nor wrong ones', () => {
    const log = new EventLog<HostChange>();
    log.append([change('a')]);
    const [name] = log.position.split('-') as [string];
    for (const position of [
      new EventLog<HostChange>().position,
      '',
      'x',
      `${name}-2`,
      `${name}--1`,
      `${name}-`,
      `${name}-0x1`,
    ])
      assert.equal(log.since(position), null, position);
  });
});
