import assert from 'node:assert/strict';
import { chooseMachines, parseMachineFilter } from '../../../src/host/machine-filter.js';
import type { MachineInfo } from '../../../src/host/machine-info.js';

const machine = (
  name: string,
  state: MachineInfo['state'],
  labels: Record<string, string> = {},
): MachineInfo => ({
  ...{ id: null, name, labels, pid: null, state, memoryBytes: null, cpus: null, touchedBytes: null },
  ...{
    cpuSeconds: null,
    dirtyBytes: null,
    saves: [],
    startedAt: null,
    endsAt: null,
    failedAt: null,
    snapshot: null,
  },
});

describe('a filter of machines', () => {
  const all = [
    machine('web-1', 'running', { course: 'os' }),
    machine('web-2', 'paused', { course: 'net' }),
    machine('db', 'failed'),
  ];
  const pass = (...filters: string[]): string[] =>
    chooseMachines(all, filters.map(parseMachineFilter)).map(({ name }) => name);

  it('selects by label, name and state; the same key means or, different keys mean and', () => {
    assert.deepEqual(pass(), ['web-1', 'web-2', 'db']);
    assert.deepEqual(pass('label=course'), ['web-1', 'web-2']);
    assert.deepEqual(pass('label=course=os', 'label=course=net', 'state=paused'), ['web-2']);
    assert.deepEqual(pass('name=web-?'), ['web-1', 'web-2']);
    assert.deepEqual(pass('state=running', 'state=failed'), ['web-1', 'db']);
    assert.deepEqual(pass('name=db', 'state=running'), []);
  });

  it('refuses what is no filter', () => {
    for (const bad of ['', 'state', 'state=asleep', 'name=', 'label=', 'kind=file', 'pid=1'])
      assert.throws(() => parseMachineFilter(bad), { code: 'USAGE', hint: /^Use / });
    assert.throws(() => parseMachineFilter('state=asleep'), { hint: /failed or gone\.$/ });
  });
});
