/** Starter files: typed at the prompts of the guest, by the machine's process, and not again after a restore. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { probe } from '../kvm/kvm.js';
import { guestThatEchoes } from '../kvm/small-guests.js';
import { ending, hearing, type World, worldOfEachTest } from './cli.js';

describe('a starter file', function () {
  this.timeout(120_000);
  let world: World;
  worldOfEachTest((made) => {
    world = made;
  });

  const file = (text: string): string => {
    const path = join(world.dir, 'starter');
    writeFileSync(path, text);
    return path;
  };
  const log = (name: string): string => readFileSync(join(world.runDir, 'livesnap', name, 'log'), 'utf8');

  /** The console's output when it matches. */
  async function console(name: string, pattern: RegExp, input = ''): Promise<string> {
    const child = world.spawn('console', name);
    const ended = ending(child);
    const heard = hearing(child, 'stdout', pattern);
    if (input !== '') child.stdin!.write(input);
    const text = await heard;
    child.kill();
    await ended;
    return text;
  }

  it('is typed line by line at the prompt of a detached machine, whole', async () => {
    const lines = Array.from({ length: 8 }, (_, i) => `${i} {{username}} ${'x'.repeat(i === 3 ? 3900 : 20)}`);
    const kernel = guestThatEchoes(join(world.dir, 'echo.elf'));
    await world.start(
      'a',
      ['--starter-file', file(`${lines.join('\n')}\n`), '--starter-set', 'username=me'],
      kernel,
    );
    const shown = await console('a', /\$ 7 me x{20}\n\$ $/);
    const expected = lines.map((line) => `$ ${line.replace('{{username}}', 'me')}\n`).join('');
    assert.equal(shown, `${expected}$ `);
    assert.match(log('a'), /typed line 8 of 8 of the starter file/);
    assert.doesNotMatch(log('a'), / me xxx/);
  });

  it('is typed once, however often the machine is saved and restored', async () => {
    // The pattern matches finished lines of the probe guest.
    const starter = file('cpus\nsum 1\nbar 1\n');
    const pattern = '^PROBE READY|^CPUS|^SUM';
    await world.json(
      ...['--kernel', `path=${probe('probe.elf')},starter_file=${starter}`, '--memory', '64M', '--detach'],
      ...['--name', 'a', '--starter-prompt', pattern],
    );
    await console('a', /OK bar/);
    await world.json('save', 'a', '--then', 'stop', '--tag', 's');
    await world.json('restore', 's', '--detach', '--starter-prompt', pattern);
    const shown = await console('a', /OK text/, 'text 1 1\n');
    for (const answer of [/^CPUS/gm, /^SUM/gm, /^OK bar/gm]) assert.equal(shown.match(answer)?.length, 1);
    assert.doesNotMatch(log('a'), /starter file/);
  });

  it('is continued after a restore where it was when the machine was saved', async () => {
    const kernel = guestThatEchoes(join(world.dir, 'echo.elf'));
    await world.start('a', ['--starter-file', file('one\ntwo\n'), '--starter-prompt', 'NEVER'], kernel);
    await world.json('save', 'a', '--then', 'stop', '--tag', 's');
    await world.json('restore', 's', '--detach', '--name', 'b');
    assert.equal(await console('b', /two\n\$ $/), '$ one\n$ two\n$ ');
  });

  it('is checked before the machine starts', async () => {
    const start = (...more: string[]) => ['start', '--kernel', probe('probe.elf'), '--detach', ...more];
    const path = file('{{ip}}');
    const unset = await world.fails(2, 'USAGE', start('--starter-file', path), true);
    assert.equal(unset.message, `starter file ${path}, line 1: {{ip}} has no value`);
    await world.fails(3, 'NO_SUCH_FILE', start('--starter-file', '/no/file'), true);
    await world.fails(2, 'USAGE', start('--starter-set', 'ip=1'), true);
    await world.fails(2, 'USAGE', start('--starter-prompt', 'x'), true);
    const twice = ['--kernel', `path=${probe('probe.elf')},starter_file=${path}`, '--starter-file', path];
    await world.fails(2, 'USAGE', [...twice, '--detach'], true);
    assert.deepEqual(world.machines(), []);
  });
});
