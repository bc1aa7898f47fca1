import assert from 'node:assert/strict';
import { readSavedMachine } from '../../../src/vmm/saved-machine.js';

const SAVED = {
  config: {
    kernel: '/boot/vmlinuz',
    initrd: null,
    cmdline: 'quiet',
    memoryBytes: 64 << 20,
    cpus: 2,
    rng: true,
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

  it('leaves out fields that it does not know', () => {
    const newer = { ...SAVED, colour: 'red', config: { ...SAVED.config, clock: 'utc' } };
    assert.deepEqual(readSavedMachine(newer), SAVED);
  });

  it('has no entropy device in a snapshot that was saved before there was one', () => {
    const { rng: _, ...config } = SAVED.config;
    assert.equal(readSavedMachine({ ...SAVED, config }).config.rng, false);
  });

  const config = (fields: object): unknown => ({ ...SAVED, config: { ...SAVED.config, ...fields } });
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
