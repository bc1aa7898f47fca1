import assert from 'node:assert/strict';
import { readSavedMachine } from '../../../src/vmm/saved-machine.js';

const DISK = {
  name: 'disk0',
  source: { kind: 'snapshot', store: '/store', snapshot: 'a'.repeat(32), region: 'file' },
  mode: 'rw',
  sizeBytes: 1 << 20,
  onError: 'pause',
} as const;

const SAVED = {
  config: {
    kernel: '/boot/vmlinuz',
    initrd: null,
    cmdline: 'quiet',
    memoryBytes: 64 << 20,
    cpus: 2,
    rng: true,
    disks: [DISK],
  },
  bootPath: 'elf',
};

describe('readSavedMachine', () => {
  it('returns the config and the boot path', () => {
    assert.deepEqual(readSavedMachine(SAVED), SAVED);
  });

  it('leaves out fields that it does not know', () => {
    const newer = { ...SAVED, colour: 'red', config: { ...SAVED.config, clock: 'utc' } };
    assert.deepEqual(readSavedMachine(newer), SAVED);
  });

  it('has no entropy device in a snapshot that was saved before there was one', () => {
    const { rng: _, ...config } = SAVED.config;
    assert.equal(readSavedMachine({ ...SAVED, config }).config.rng, false);
  });

  it('has no disks in a snapshot that was saved before there were any', () => {
    const { disks: _, ...config } = SAVED.config;
    assert.deepEqual(readSavedMachine({ ...SAVED, config }).config.disks, []);
  });

  const config = (fields: object): unknown => ({ ...SAVED, config: { ...SAVED.config, ...fields } });
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
    [disk({ source: { kind: 'nbd' } }), 'machine.config.disks[0].source.kind is not file or snapshot'],
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
