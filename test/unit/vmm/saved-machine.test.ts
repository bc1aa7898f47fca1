import assert from 'node:assert/strict';
import { readSavedMachine } from '../../../src/vmm/saved-machine.js';

const DISK = {
  name: 'disk0',
  source: { kind: 'snapshot', store: '/store', snapshot: 'a'.repeat(32), region: 'file' },
  mode: 'rw',
  sizeBytes: 1 << 20,
  onError: 'pause',
} as const;

const NET = {
  name: 'net0',
  mac: '02:00:00:00:00:01',
  offloads: true,
  backend: { kind: 'tap', tap: 'tap0', netns: null, create: false, address: null },
};

const SAVED = {
  config: {
    kernel: '/boot/vmlinuz',
    initrd: null,
    cmdline: 'quiet',
    memoryBytes: 64 << 20,
    cpus: 2,
    vmgenid: true,
    rng: true,
    disks: [DISK],
    nets: [NET],
  },
  bootPath: 'elf',
};

describe('readSavedMachine', () => {
  it('returns the config and the boot path', () => {
    assert.deepEqual(readSavedMachine(SAVED), SAVED);
  });

  it('returns the CPU template of a machine that has one', () => {
    const saved = JSON.parse(JSON.stringify(SAVED));
    saved.config.cpuTemplate = 'x86-64-v2';
    assert.deepEqual(readSavedMachine(saved), saved);
    saved.config.cpuTemplate = 'x86-64-v9';
    assert.throws(
      () => readSavedMachine(saved),
      /machine\.config\.cpuTemplate is not minimal, x86-64-v2 or x86-64-v3/,
    );
  });

  it('returns labels, and refuses those that are not valid', () => {
    const labelled = { ...SAVED, labels: { course: 'os' } };
    assert.deepEqual(readSavedMachine(labelled), labelled);
    for (const labels of [null, [], { 'a b': '' }, { a: 1 }])
      assert.throws(() => readSavedMachine({ ...SAVED, labels }), /machine\.labels/);
  });

  it('leaves out fields that it does not know', () => {
    const newer = { ...SAVED, colour: 'red', config: { ...SAVED.config, clock: 'utc' } };
    assert.deepEqual(readSavedMachine(newer), SAVED);
  });

  it('has no entropy device and no generation ID in a snapshot that was saved before there were any', () => {
    const { rng: _rng, vmgenid: _vmgenid, ...config } = SAVED.config;
    const { rng, vmgenid } = readSavedMachine({ ...SAVED, config }).config;
    assert.deepEqual({ rng, vmgenid }, { rng: false, vmgenid: false });
  });

  it('has no disks in a snapshot that was saved before there were any', () => {
    const { disks: _, ...config } = SAVED.config;
    assert.deepEqual(readSavedMachine({ ...SAVED, config }).config.disks, []);
  });

  it('has no networks in a snapshot that was saved before there were any', () => {
    const { nets: _, ...config } = SAVED.config;
    assert.deepEqual(readSavedMachine({ ...SAVED, config }).config.nets, []);
  });

  const config = (fields: object): unknown => ({ ...SAVED, config: { ...SAVED.config, ...fields } });
  const net = (fields: object): unknown => config({ nets: [{ ...NET, ...fields }] });
  const tap = (fields: object): unknown => net({ backend: { ...NET.backend, ...fields } });
  const disk = (fields: object): unknown => config({ disks: [{ ...DISK, ...fields }] });
  for (const [value, problem] of [
    [null, 'machine is not an object'],
    [undefined, 'machine is missing'],
    [{ bootPath: null }, 'machine.config is missing'],
    [{ ...SAVED, config: [] }, 'machine.config is not an object'],
    [{ config: SAVED.config }, 'machine.bootPath is missing'],
    [config({ kernel: 1 }), 'machine.config.kernel is not a string'],
    [config({ initrd: undefined }), 'machine.config.initrd is missing'],
    [config({ cmdline: {} }), 'machine.config.cmdline is not a string'],
    [config({ rng: 'yes' }), 'machine.config.rng is not true or false'],
    [config({ vmgenid: 1 }), 'machine.config.vmgenid is not true or false'],
    [net({ name: 'eth0' }), 'machine.config.nets are not named net0, net1, … in this order'],
    [net({ mac: '01:00:00:00:00:01' }), 'machine.config.nets[0].mac is not a MAC address of one station'],
    [net({ backend: { kind: 'vde' } }), 'machine.config.nets[0].backend.kind is not tap or user'],
    [tap({ tap: '../x' }), 'machine.config.nets[0].backend.tap is not a name of an interface'],
    [tap({ netns: 'a\x1b[2J' }), 'machine.config.nets[0].backend.netns is not a network namespace'],
    [tap({ address: '$(id)' }), 'machine.config.nets[0].backend.address is not an address'],
    [
      net({ backend: { kind: 'user', forwards: [{ address: null, hostPort: 0, guestPort: 1 }] } }),
      'machine.config.nets[0].backend.forwards[0].hostPort is not an integer from 1 to 65535',
    ],
    [config({ disks: {} }), 'machine.config.disks is not a list'],
    [config({ disks: Array(17).fill(DISK) }), 'machine.config.disks has 17 items, not 0 to 16'],
    [disk({ name: 'ram@0x0' }), 'machine.config.disks are not named disk0, disk1, … in this order'],
    [disk({ sizeBytes: 1000 }), 'machine.config.disks[0].sizeBytes is not a multiple of 512'],
    [
      disk({ sizeBytes: 2 ** 44 }),
      'machine.config.disks[0].sizeBytes is not an integer from 512 to 8796093022208',
    ],
    [disk({ mode: 'rwx' }), 'machine.config.disks[0].mode is not rw, ro or cow'],
    [disk({ onError: 'ignore' }), 'machine.config.disks[0].onError is not pause or report'],
    [disk({ source: { kind: 'nbd' } }), 'machine.config.disks[0].source.kind is not file, share or snapshot'],
    [disk({ source: { kind: 'file' } }), 'machine.config.disks[0].source.path is missing'],
    [
      disk({ source: { ...DISK.source, region: '../x' } }),
      'machine.config.disks[0].source.region is not a region',
    ],
    [config({ cpus: 0 }), 'machine.config.cpus is not an integer from 1 to 254'],
    [
      config({ memoryBytes: '64M' }),
      'machine.config.memoryBytes is not an integer from 2097152 to 35184372088832',
    ],
    [config({ memoryBytes: (64 << 20) + 1 }), 'machine.config.memoryBytes is not a multiple of 4096'],
  ] as const) {
    it(`refuses a description where ${problem}`, () => {
      assert.throws(() => readSavedMachine(value), {
        code: 'BAD_STATE',
        message: `the saved state is invalid: ${problem}`,
      });
    });
  }
});
