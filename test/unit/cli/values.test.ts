import assert from 'node:assert/strict';
import {
  parseCount,
  parseCpus,
  parseDuration,
  parseGroupBy,
  parseKeepCount,
  parseKernel,
  parseList,
  parseMemory,
  parseMoment,
  parsePattern,
  parsePort,
  parseSeconds,
  parseSize,
  parseSnapshotRegion,
  parseSpan,
  parseVcpu,
  parseWord,
} from '../../../src/cli/values.js';
import { LivesnapError } from '../../../src/errors.js';
import { requireMemory } from '../../../src/host/guest-memory.js';

const refuses = (parse: () => unknown, message?: RegExp) =>
  assert.throws(
    parse,
    (error) =>
      error instanceof LivesnapError && error.code === 'USAGE' && (message?.test(error.message) ?? true),
  );

describe('the value of an option', () => {
  it('is a snapshot, perhaps with a region', () => {
    assert.deepEqual(parseSnapshotRegion('debian'), { snapshot: 'debian', region: null });
    assert.deepEqual(parseSnapshotRegion('web:ram@0x0'), { snapshot: 'web', region: 'ram@0x0' });
    for (const text of ['', ':', 'web:', ':disk0'])
      refuses(() => parseSnapshotRegion(text), /is not SNAPSHOT or SNAPSHOT:REGION$/);
  });

  it('is a size in bytes or with a binary unit', () => {
    for (const [text, bytes] of [
      ['4096', 4096],
      ['64K', 65_536],
      ['256M', 2 ** 28],
      ['256MiB', 2 ** 28],
      ['256mb', 2 ** 28],
      ['1.5G', 1.5 * 2 ** 30],
      ['2T', 2 ** 41],
      ['0', 0],
    ] as const)
      assert.equal(parseSize(text), bytes, text);
    for (const bad of ['', '-1', '1X', 'M', '1e9', '0x10', '1,5G', '0.3', 'NaN', '9'.repeat(16), '1 2'])
      refuses(() => parseSize(bad), /not a size/);
  });

  it('is no memory size below 1 MiB without a unit', () => {
    for (const text of ['1', '512', '1048575'])
      assert.throws(
        () => parseMemory(text),
        ({ message, hint }: LivesnapError) =>
          message === `${text} bytes of memory are too few` && hint === `Did you mean ${text}M?`,
      );
    assert.equal(parseMemory('1048576'), 2 ** 20);
    assert.equal(parseMemory('64K'), 2 ** 16);
  });

  it('is a memory size of whole pages that the host has', () => {
    assert.equal(parseMemory('64M'), 2 ** 26);
    assert.equal(parseMemory('size_mib=64'), 2 ** 26);
    refuses(() => parseMemory('0'), /needs memory/);
    refuses(() => parseMemory('size_mib=0'), /needs memory/);
    refuses(() => parseMemory('1050000'), /multiple of 4096/);
    refuses(() => parseMemory('1K'), /multiple of 4096/);
    refuses(() => parseMemory('1000T'), /more than this host has/);
    refuses(() => parseMemory('size_mib='));
    refuses(() => parseMemory('size_mib=1,size_mib=2'), /twice/);
    assert.equal(requireMemory(8192, 8192), 8192);
    refuses(() => requireMemory(12288, 8192));
  });

  it('is a number of vCPUs of at least one', () => {
    assert.equal(parseCpus('4'), 4);
    assert.equal(parseVcpu('num=4'), 4);
    for (const bad of ['0', '-1', '', 'two', '1.5', '1e1', '01', '9999999999']) refuses(() => parseCpus(bad));
    refuses(() => parseVcpu('4'));
    refuses(() => parseVcpu('num=0'));
  });

  it('is a port, a number of seconds, a regular expression or one of a few words', () => {
    assert.equal(parsePort('65535'), 65_535);
    for (const bad of ['0', '65536', '-1', 'http', '']) refuses(() => parsePort(bad));
    assert.equal(parseSeconds('1.5'), 1500);
    assert.equal(parseSeconds('0'), 0);
    for (const bad of ['', '-1', 'soon', '1s', 'Infinity']) refuses(() => parseSeconds(bad));
    assert.equal(parseDuration('90s'), 90_000);
    assert.equal(parseDuration('1.5h'), 5_400_000);
    for (const bad of ['', '10', '0m', '-1s', '1w', '1e3s', 's'])
      refuses(() => parseDuration(bad), /not a time/);
    assert.equal(parseCount('12'), 12);
    for (const bad of ['', '0', '-1', '1.5', 'all', '1e3']) refuses(() => parseCount(bad), /not a number/);
    assert.deepEqual([parseKeepCount('7'), parseKeepCount('unlimited')], [7, Infinity]);
    for (const bad of ['', '0', '-1', 'all', '1e3']) refuses(() => parseKeepCount(bad), /not a number/);
    assert.deepEqual(parseSpan('2y5m7d3h'), { years: 2, months: 5, days: 7, hours: 3 });
    assert.deepEqual(parseSpan('10d'), { years: 0, months: 0, days: 10, hours: 0 });
    for (const bad of ['', '7', '7w', '0d', '1.5d', '-1d', '1d 2h', 'd'])
      refuses(() => parseSpan(bad), /not a number of/);
    assert.deepEqual(parseGroupBy('none'), []);
    assert.deepEqual(parseGroupBy('machine,label:a:b'), [{ by: 'machine' }, { by: 'label', label: 'a:b' }]);
    for (const bad of ['', 'label', 'label:', 'machine,', 'machine,none', 'tag'])
      refuses(() => parseGroupBy(bad), /no way to group/);
    assert.equal(parseMoment('90s', 100_000), 10_000);
    assert.equal(parseMoment('1.5h', 5_400_000), 0);
    assert.equal(parseMoment('2026-01-31'), new Date(2026, 0, 31).getTime());
    assert.equal(parseMoment('2024-02-29T18:30'), new Date(2024, 1, 29, 18, 30).getTime());
    assert.equal(parseMoment('2026-01-31T18:30:05'), new Date(2026, 0, 31, 18, 30, 5).getTime());
    assert.equal(parseMoment('2026-01-31T18:30Z'), Date.UTC(2026, 0, 31, 18, 30));
    assert.equal(parseMoment('2026-01-31T18:30:00+02:00'), Date.UTC(2026, 0, 31, 16, 30));
    for (const bad of ['', '2d3h', '1w', '0s', '2026', '2026-02-29', '2026-13-01', '2026-01-31T25:00'])
      refuses(() => parseMoment(bad), /not a time/);
    for (const bad of ['31.1.2026', '2026-01-31 18:30', 'yesterday', '2026-1-3', '2026-01-31T1', '-1d'])
      refuses(() => parseMoment(bad), /not a time/);
    assert.ok(parsePattern('^SUM').test('SUM 1'));
    refuses(() => parsePattern('('), /regular expression/);
    assert.equal(parseWord('resume', 'pause', 'stop')('stop'), 'stop');
    refuses(() => parseWord('resume', 'pause', 'stop')('fly'), /not resume, pause or stop/);
  });

  it('is a legacy list, whose values may contain commas', () => {
    assert.deepEqual(parseList('path=/a,b,cmdline=x=1,clearcpuid=1,2,path_x=3', ['path', 'cmdline']), {
      path: '/a,b',
      cmdline: 'x=1,clearcpuid=1,2,path_x=3',
    });
    refuses(() => parseList('other=1', ['path']));
    refuses(() => parseList(',path=1', ['path']));
    refuses(() => parseList('path=1,path=2', ['path']), /twice/);
  });

  it('is a kernel: a file, or a legacy list', () => {
    assert.deepEqual(parseKernel('dir/bzImage'), {
      ...{ path: 'dir/bzImage', cmdline: null, starterFile: null, ignored: [] },
    });
    assert.deepEqual(parseKernel('path=/k,cmdline=console=ttyS0 clearcpuid=110,111'), {
      path: '/k',
      cmdline: 'console=ttyS0 clearcpuid=110,111',
      starterFile: null,
      ignored: [],
    });
    const started = parseKernel('dir/bzImage,starter_file=a,b');
    assert.deepEqual([started.path, started.starterFile], ['dir/bzImage', 'a,b']);
    const all = parseKernel('path=/k,cmdline=a b,kernel_load_addr=0x100000,starter_file=/s');
    assert.equal(all.path, '/k');
    assert.equal(all.cmdline, 'a b');
    assert.equal(all.starterFile, '/s');
    assert.equal(all.ignored.length, 1);
    refuses(() => parseKernel('path=/k,starter_file='), /starter_file= is empty/);
    refuses(() => parseKernel('cmdline=x'), /no path=/);
    refuses(() => parseKernel('path=/k,kernel_load_addr=soon'), /not an address/);
    refuses(() => parseKernel(''));
  });
});
