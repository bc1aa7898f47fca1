/** The verb `fit`, with the hosts of test/fixtures/hosts and this one. */
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../src/native/addon.js';
import type { FitFinding } from '../../src/vmm/fit/compare.js';
import { probe, requireKvm } from '../kvm/kvm.js';
import { World } from './cli.js';

interface Fit {
  snapshot: string;
  fits: boolean;
  findings: FitFinding[];
}

describe('livesnap fit', () => {
  let world: World;
  let here: string;
  before(async function () {
    requireKvm(this);
    world = new World();
    await world.start('a', [], probe('probe.bzImage'));
    await world.json('save', 'a', '--tag', 'first', '--then', 'stop');
    here = join(world.dir, 'here.json');
    const doctor = await world.run(['doctor', '--json']);
    writeFileSync(here, doctor.stdout);
  });
  after(() => world?.end());

  /** The file of this host, changed. */
  function changed(name: string, change: (host: Record<string, unknown>) => void): string {
    const doctor = JSON.parse(readFileSync(here, 'utf8'));
    change(doctor.host);
    const path = join(world.dir, name);
    writeFileSync(path, JSON.stringify(doctor));
    return path;
  }

  it('says that a snapshot fits the host that saved it, here and as a file', async () => {
    for (const args of [
      ['fit', 'first'],
      ['fit', 'first', '--against', here],
    ]) {
      const { fits, findings } = await world.json<Fit>(...args);
      assert.deepEqual([fits, findings], [true, []]);
    }
  });

  it('names what another host lacks, with exit status 5', async () => {
    const other = changed('other.json', (host) => {
      host.memoryBytes = 4096;
      host.tscKhz = 123_456;
      host.tscControl = false;
    });
    const ran = await world.run(['fit', 'first', '--against', other, '--json']);
    assert.equal(ran.status, 5, ran.stderr);
    const { fits, findings } = JSON.parse(ran.stdout) as Fit;
    assert.equal(fits, false);
    assert.deepEqual(
      findings.map(({ level, thing }) => [level, thing]),
      [
        ['refuse', 'TSC rate'],
        ['refuse', 'memory'],
      ],
    );
    const plain = await world.run(['fit', 'first', '--against', other]);
    assert.equal(plain.status, 5);
    assert.match(plain.stdout, /does not fit the host in .*other\.json\n/);
    assert.match(
      plain.stdout,
      /WRONG {2}TSC rate {2}needs [\d.]+ MHz\n +host: 123\.456 MHz and cannot scale it\n +→ Use/,
    );
  });

  it('fits a host about which there are only warnings, with exit status 0', async () => {
    const newer = changed('newer.json', (host) => {
      host.kernel = '99.0';
    });
    const { fits, findings } = await world.json<Fit>('fit', 'first', '--against', newer);
    assert.deepEqual([fits, findings.map(({ thing }) => thing)], [true, ['kernel']]);
  });

  it('reads the recorded hosts', async () => {
    const amd = join(projectRoot, 'test/fixtures/hosts/amd-zen4.json');
    const ran = await world.run(['fit', 'first', '--against', amd, '--json']);
    const { findings } = JSON.parse(ran.stdout) as Fit;
    assert.equal(findings.length > 0, true);
  });

  it('refuses a file that does not describe a host', async () => {
    const file = (name: string, text: string): string => {
      const path = join(world.dir, name);
      writeFileSync(path, text);
      return path;
    };
    const huge = file('huge', '');
    truncateSync(huge, 2 ** 30);
    mkdirSync(join(world.dir, 'directory'));
    for (const [path, message] of [
      [file('text', 'hello'), /is not JSON/],
      [file('list', '[]'), /is not an object/],
      [file('without', '{"ok":true,"checks":[]}'), /host is missing/],
      [file('null', '{"host":null}'), /found no KVM there/],
      [file('wrong', '{"host":{"version":1}}'), /kvm is missing/],
      [huge, /is larger than/],
      [join(world.dir, 'directory'), /not a regular file/],
    ] as const) {
      const error = await world.fails(2, 'USAGE', ['fit', 'first', '--against', path], true);
      assert.match(error.message, message);
    }
    await world.fails(3, 'NO_SUCH_FILE', ['fit', 'first', '--against', '/no/such/file'], true);
    await world.fails(
      1,
      'NEWER_FORMAT',
      ['fit', 'first', '--against', file('newer', '{"host":{"version":2}}')],
      true,
    );
  });

  it('refuses a snapshot of a file, and one that does not exist', async () => {
    const path = join(world.dir, 'data');
    copyFileSync(here, path);
    await world.json('put', path, '--tag', 'data');
    await world.fails(2, 'USAGE', ['fit', 'data'], true);
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['fit', 'nothing'], true);
  });
});
