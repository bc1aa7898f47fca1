/** Completion, as bash, zsh and fish themselves do it with the scripts. Nothing else knows whether a script is right. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { ALIASES, VERBS } from '../../src/cli/verbs.js';
import { projectRoot } from '../../src/native/project-root.js';
import { limit } from '../timeouts.js';
import { World } from './cli.js';

/** The words that each shell offers after these command lines, sorted. */
const OFFERED: readonly (readonly [line: string, words: readonly string[]])[] = [
  ['re', ['repair', 'restore', 'resume']],
  ['--store /nowhere ins', ['inspect']],
  ['frobnicate ', []],
  ['help sta', ['start', 'stats']],
  ['completion ', ['bash', 'fish', 'zsh']],
  // options, and words of their values
  ['save web --t', ['--tag', '--then']],
  ['save web --then ', ['pause', 'resume', 'stop']],
  ['start --cpu-template m', ['minimal']],
  ['kill --fo', ['--force']],
  ['ps --s', []],
  ['restore --cpu', []],
  ['start --name ', []],
  ['ls --time ', ['absolute', 'relative']],
  ['logs --fol', ['--follow']],
  // machines
  ['stop ', ['db', 'web']],
  ['attach w', ['web']],
  ['stop web d', ['db']],
  ['console web w', []],
  ['logs -n 5 w', ['web']],
  ['logs -f -n ', []],
  ['fork ', ['db', 'first', 'second', 'web']],
  ['fork --store nowhere ', ['db', 'web']],
  ['fork --type m', ['machine']],
  // snapshots and tags
  ['show ', ['db', 'first', 'second', 'web']],
  ['delete first s', ['second']],
  ['tag first new se', ['second']],
  ['put here.img --tag f', ['first']],
  ['--json save web --tag s', ['second']],
  ['--store other tag ', ['elsewhere']],
  ['tag --store other ', ['elsewhere']],
  ['tag --store=other ', ['elsewhere']],
  ['rm --store nowhere x', []],
  // files
  ['start --kernel her', ['here.img']],
  ['get first her', ['here.img']],
];

const SHELLS: Record<string, (world: World, dir: string, line: string) => string[]> = {
  bash: (world, dir, line) =>
    run(world, dir, 'bash', [
      '--norc',
      '-c',
      // readline divides words at "=", too.
      `source ./livesnap.bash
      COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
      _livesnap && printf '%s\\n' "\${COMPREPLY[@]}"`,
      'bash',
      ...line.split(/ |(=)/).filter((word) => word !== undefined),
    ]),
  zsh: (world, dir, line) =>
    run(world, dir, 'zsh', ['-f', join(projectRoot, 'test/e2e/complete.zsh'), dir, line]),
  fish: (world, dir, line) =>
    run(world, dir, 'fish', ['--no-config', '-c', `source livesnap.fish; complete -C '${line}'`]).map(
      (candidate) => candidate.split('\t')[0]!,
    ),
};

/** The files of the scripts, as zsh requires. */
const FILES: Record<string, string> = { bash: 'livesnap.bash', zsh: '_livesnap', fish: 'livesnap.fish' };

function run(world: World, cwd: string, shell: string, args: readonly string[]): string[] {
  const PATH = [join(projectRoot, 'bin'), process.env.PATH].join(delimiter);
  const { status, stdout, stderr } = spawnSync(shell, args, {
    cwd,
    env: { ...world.env, PATH, HOME: cwd },
    encoding: 'utf8',
    // A shell that asks something waits forever, and this call with it.
    timeout: limit(60_000),
  });
  assert.deepEqual([status, stderr], [0, ''], stderr);
  return stdout.split('\n').filter((line) => line !== '');
}

const exists = (shell: string): boolean => spawnSync(shell, ['-c', ':']).status === 0;

describe('livesnap completion', function () {
  this.timeout(120_000);
  let world: World;
  let dir: string;
  before(async () => {
    world = new World();
    dir = join(world.dir, 'work');
    mkdirSync(dir);
    writeFileSync(join(dir, 'here.img'), 'x');
    const put = (tag: string, ...more: string[]) =>
      world.json('put', join(dir, 'here.img'), '--tag', tag, ...more);
    await put('first');
    writeFileSync(join(dir, 'here.img'), 'y');
    await put('second');
    await put('elsewhere', '--store', join(dir, 'other'));
    for (const name of ['web', 'db'])
      mkdirSync(join(world.runDir, 'livesnap', name), { recursive: true, mode: 0o700 });
    for (const [shell, file] of Object.entries(FILES)) {
      const { stdout } = await world.run(['completion', shell]);
      writeFileSync(join(dir, file), stdout);
    }
  });
  after(() => world.end());

  for (const [shell, complete] of Object.entries(SHELLS)) {
    describe(`in ${shell}`, () => {
      before(function () {
        if (exists(shell)) return;
        process.stderr.write(`    SKIPPED, not tested: ${shell} is not installed\n`);
        this.skip();
      });

      for (const [line, words] of OFFERED)
        it(`offers ${words.join(', ') || 'nothing'} after: livesnap ${line}`, () => {
          assert.deepEqual(complete(world, dir, `livesnap ${line}`).sort(), words);
        });

      it('offers all verbs and aliases, but no hidden verb', () => {
        const listed = [...VERBS].flatMap(([name, { isHidden }]) => (isHidden ? [] : [name]));
        assert.deepEqual(
          complete(world, dir, 'livesnap ').sort(),
          [...listed, ...ALIASES.keys(), 'help'].sort(),
        );
      });

      it('offers the directories of exports where no snapshot matches', () => {
        const [directory, ...more] = complete(world, dir, 'livesnap restore oth');
        assert.match(directory!, /^other\/?$/);
        assert.deepEqual(more, []);
      });
    });
  }

  it('lists names in JSON, and none where they cannot be read', async () => {
    assert.deepEqual(await world.json('list-names', 'snapshots'), ['first', 'second']);
    assert.deepEqual(await world.json('list-names', 'machines'), ['db', 'web']);
    const none = await world.run(['list-names', 'tags', '--store', '/nowhere']);
    assert.deepEqual(none, { status: 0, stdout: '', stderr: '' });
  });

  it('has a script in JSON', async () => {
    const { shell, script } = await world.json<{ shell: string; script: string }>('completion', 'bash');
    assert.equal(shell, 'bash');
    assert.equal((await world.run(['completion', 'bash'])).stdout, `${script.trimEnd()}\n`);
  });
});
