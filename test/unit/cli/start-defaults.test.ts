import assert from 'node:assert/strict';
import { givenOr, orNone, startDefaults } from '../../../src/cli/start-defaults.js';

describe('the defaults of start', () => {
  it('are those of the config file, read as the options are', () => {
    assert.deepEqual(
      startDefaults('/c', { memory: '64M', cpus: 2, block: ['path=/a,,b,cow'], net: ['user,forward=80:80'] }),
      {
        memoryBytes: 64 * 2 ** 20,
        cpus: 2,
        disks: [{ source: { kind: 'file', path: '/a,b' }, mode: 'cow', onError: 'pause' }],
        nets: [
          {
            backend: { kind: 'user', forwards: [{ address: null, hostPort: 80, guestPort: 80 }] },
            mac: null,
          },
        ],
      },
    );
    assert.deepEqual(startDefaults(null, {}), {
      memoryBytes: undefined,
      cpus: undefined,
      disks: [],
      nets: [],
    });
  });

  it('are refused with the name of the file and the key', () => {
    for (const [config, message] of [
      [{ memory: 'lots' }, /^the config file \/c: memory: "lots" is not a size$/],
      [{ memory: '512' }, /^the config file \/c: memory: 512 bytes of memory are too few$/],
      [{ block: ['disk.img'] }, /^the config file \/c: block: unknown part "disk.img"$/],
      [{ block: ['path=a.img'] }, /^the config file \/c: block: the path in "path=a.img" is relative$/],
      [{ block: ['cow,path=a.img'] }, /is relative$/],
      [{ net: ['tap0'] }, /^the config file \/c: net: "tap0" is no part of a network$/],
    ] as const)
      assert.throws(
        () => startDefaults('/c', config),
        ({ code, message: found, hint }: { code: string; message: string; hint: string }) =>
          code === 'USAGE' && message.test(found) && hint !== undefined,
      );
  });

  it('are replaced by any value of the option, and left out by none', () => {
    assert.deepEqual(givenOr('--net', [], ['default']), ['default']);
    assert.deepEqual(givenOr('--net', ['a', 'b'], ['default']), ['a', 'b']);
    assert.deepEqual(givenOr('--net', [null], ['default']), []);
    assert.throws(() => givenOr('--net', ['a', null], []), /--net none excludes other values/);
    assert.equal(orNone(Number)('none'), null);
    assert.equal(orNone(Number)('1'), 1);
  });
});
