/** The help, and the errors for wrong input, of every verb in VERBS; machines and kernels that do not exist. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { anyText } from '../../src/cli/values.js';
import type { OptionSpec, Verb } from '../../src/cli/verb.js';
import { ALIASES, VERBS } from '../../src/cli/verbs.js';
import { ERROR_CODES } from '../../src/errors.js';
import { MAIN, World } from './cli.js';

const verbs = await Promise.all(
  [...VERBS].map(async ([name, { load, ...listed }]) => ({ name, ...listed, verb: (await load()).verb })),
);

/** `--tag` of `--tag <tag>`. */
/** `--tail` of `-n, --tail <lines>`. */
const nameOf = ({ flags }: OptionSpec<unknown>): string => /--[\w-]+/.exec(flags)![0];

/** The options of a verb that refuse some values. */
const parsing = (verb: Verb): [key: string, option: OptionSpec<unknown>][] =>
  Object.entries(verb.options).filter(([, { parse }]) => parse !== undefined && parse !== anyText);

type WrongValue = readonly [value: string, message: RegExp];
const EMPTY: WrongValue = ['', /the value is empty/];

/** A wrong value for each option that parses one. A verb or an option without an entry fails its test. */
const WRONG_VALUES: Record<string, Record<string, WrongValue>> = {
  start: {
    kernel: ['cmdline=x', /has no path=/],
    initrd: EMPTY,
    memory: ['lots', /"lots" is not a size/],
    cpus: ['0', /not a number of vCPUs/],
    vcpu: ['2', /does not begin with num=/],
    block: ['disk.img', /unknown part "disk.img"/],
    share: EMPTY,
    net: ['tap0', /"tap0" is no part of a network/],
    overlayDir: EMPTY,
    cpuTemplate: ['x86-64-v4', /not minimal, x86-64-v2 or x86-64-v3/],
    name: EMPTY,
    label: ['=x', /is not a label/],
    lifetime: ['10', /is not a time/],
    port: ['0', /not a port/],
    starterFile: EMPTY,
    starterPrompt: ['(', /not a regular expression/],
    starterSet: ['host=x', /no placeholder "host"/],
  },
  console: {
    history: ['much', /not a size/],
    until: ['(', /not a regular expression/],
    timeout: ['soon', /not a number of seconds/],
  },
  stop: { timeout: ['soon', /not a number of seconds/] },
  save: { tag: EMPTY, then: ['fly', /not resume, pause or stop/] },
  restore: {
    name: EMPTY,
    label: ['course', /is not a label/],
    lifetime: ['0s', /is not a time/],
    net: ['user', /"user" does not name a network/],
    overlayDir: EMPTY,
    port: ['65536', /not a port/],
    clock: ['guest', /not host or saved/],
    starterPrompt: ['(', /not a regular expression/],
    kernel: ['cmdline=x', /has no path=/],
    cpuPath: EMPTY,
    memoryPath: EMPTY,
  },
  serve: {
    listen: ['here', /not an address and a port/],
    tlsCert: EMPTY,
    tlsKey: EMPTY,
    publicUrl: EMPTY,
    tokenFile: EMPTY,
    namedStore: ['/srv/store', /not a name and a directory/],
    remote: ['ssh://host/dir', /not a name and an address/],
    maxImport: ['much', /not a size/],
    original: ['65536', /not a port/],
    starterFile: EMPTY,
    ports: ['9-8', /not a range of ports/],
    tap: EMPTY,
    allow: EMPTY,
  },
  show: { type: ['file', /not machine or snapshot/] },
  logs: { tail: ['few', /not a number of lines/], type: ['file', /not machine or snapshot/] },
  fork: {
    count: ['0', /not a number/],
    name: EMPTY,
    type: ['file', /not machine or snapshot/],
    tag: EMPTY,
    label: ['course', /is not a label/],
    lifetime: ['0s', /is not a time/],
    net: ['user', /"user" does not name a network/],
    overlayDir: EMPTY,
  },
  ps: {
    filter: ['state=asleep', /"state=asleep" is not a filter/],
    time: ['utc', /not relative or absolute/],
  },
  ls: {
    filter: ['size=3', /"size=3" is not a filter/],
    since: ['2026-02-30', /"2026-02-30" is not a time/],
    until: ['yesterday', /"yesterday" is not a time/],
    sort: ['colour', /not created, size, stored or name/],
    limit: ['0', /not a number/],
    time: ['utc', /not relative or absolute/],
  },
  forget: {
    last: ['0', /"0" is not a number/],
    hourly: ['some', /not a number/],
    daily: ['-1', /not a number/],
    weekly: ['1.5', /not a number/],
    monthly: ['all', /not a number/],
    yearly: ['', /not a number/],
    within: ['7w', /"7w" is not a number of years, months, days and hours/],
    tags: EMPTY,
    groupBy: ['colour', /no way to group/],
    filter: ['parent', /not a filter/],
  },
  gc: { maxRepack: ['-1', /not a size/] },
  check: { readData: ['3/2', /not a part/] },
  copy: { to: EMPTY, from: EMPTY, filter: ['kind=all', /not a filter/] },
  put: { tag: EMPTY, name: EMPTY },
  fit: { against: EMPTY },
};

/** More wrong input: combinations of options, and values that a verb checks itself. */
const MORE: readonly (readonly [args: readonly string[], message: RegExp])[] = [
  [['frobnicate'], /unknown verb 'frobnicate'/],
  [['frobnicate', '-h'], /unknown verb 'frobnicate'/],
  [['help', 'frobnicate'], /unknown verb 'frobnicate'/],
  [['compare', 'a', 'b'], /unknown verb/],
  [['ls', '--store', ''], /--store: the value is empty/],
  [['start'], /needs a kernel/],
  [['start', '--kernel', '/dev/null', '--memory', '0'], /needs memory/],
  [['start', '--kernel', '/dev/null', '--memory', '100T'], /more than this host has/],
  [['start', '--kernel', '/dev/null', '--memory', '512'], /512 bytes of memory are too few/],
  [['start', '--kernel', '/dev/null', '--memory', '1234567'], /multiple of 4096/],
  [['start', '--kernel', '/dev/null', '--cpus', '2', '--vcpu', 'num=2'], /both give the number of vCPUs/],
  [['start', '--kernel', 'path=/dev/null,cmdline=a', '--cmdline', 'b'], /twice/],
  [['start', '--kernel', '/dev/null', '--lazy'], /unknown option/],
  [['--kernel', 'cmdline=x'], /no path=/],
  [['restore'], /needs a snapshot/],
  [['restore', 'a', '--quickly'], /unknown option/],
  [['restore', 'a', '--lazy', '--eager'], /exclude each other/],
  [['restore', 'a', '--cpu_path', 'b'], /different snapshots/],
  [['restore', 'c', '--cpu_path', 'a', '--memory_path', 'b'], /different snapshots/],
  [['stop', '../a'], /not a valid machine name/],
  [['forget'], /no rule says which snapshots to keep/],
  [['forget', 'a', '--prune', '--dry-run'], /no rule says/],
  [['completion', 'tcsh'], /"tcsh" is not bash, zsh or fish/],
  [['list-names', 'toString'], /not a kind of names/],
  [['copy', 'a'], /needs --to or --from/],
  [['copy', '--to', '/x'], /needs snapshots or --all/],
  [['copy', 'a', '--all', '--to', '/x'], /needs snapshots or --all/],
  [['copy', 'a', '--filter', 'untagged', '--to', '/x'], /--filter needs --all/],
];

/** Wrong input that follows from what a verb declares. */
function wrongInput(name: string, verb: Verb): (readonly [args: readonly string[], message: RegExp])[] {
  const operands = verb.operands.map((_, i) => `operand${i}`);
  const required = verb.operands.filter((operand) => operand.startsWith('<')).length;
  const isVariadic = verb.operands.some((operand) => operand.includes('...'));
  return [
    [[name, ...operands, '--no-such-option'], /unknown option '--no-such-option'/],
    ...(required > 0
      ? ([[[name, ...operands.slice(0, required - 1)], /missing required argument/]] as const)
      : []),
    ...(isVariadic ? [] : ([[[name, ...operands, 'superfluous'], /too many arguments/]] as const)),
    ...parsing(verb).map(([key, option]) => {
      const [value, message] = WRONG_VALUES[name]?.[key] ?? EMPTY;
      const named = new RegExp(`^${nameOf(option)}: .*${message.source}`);
      return [[name, ...operands, `${nameOf(option)}=${value}`], named] as const;
    }),
  ];
}

describe('livesnap', () => {
  let world: World;
  before(() => {
    world = new World();
  });
  after(() => world.end());

  const refuses = (args: readonly string[], message: RegExp): void => {
    it(`refuses: ${args.join(' ')}`, async () => {
      const error = await world.fails(2, 'USAGE', args, true);
      assert.match(error.message, message);
      assert.ok(error.hint, 'a hint says what to do');
    });
  };

  it('lists its verbs by group in the help, on one line each', async () => {
    const { status, stdout } = await world.run(['--help']);
    assert.equal(status, 0);
    const groups = new Map<string, string[]>();
    for (const { name, group, isHidden } of verbs)
      if (!isHidden) groups.set(group, [...(groups.get(group) ?? []), name]);
    assert.deepEqual([...groups.keys()], ['Machines', 'Snapshots', 'Store', 'Transfer', 'Files', 'Host']);
    for (const [group, names] of groups) {
      const lines = new RegExp(`^${group}:\n((?: {2}\\S.*\n)+)\n`, 'm').exec(stdout)![1]!.trimEnd();
      assert.deepEqual(
        lines.split('\n').map((line) => line.trim().split(/ {2,}/)),
        names.map((name) => [name, verbs.find((entry) => entry.name === name)!.summary]),
      );
    }
    assert.doesNotMatch(stdout, /serve-store/);
    assert.match(stdout, /livesnap VERB --help/);
  });

  it('has environment variables and exit statuses in the help, in lines of less than 80 columns', async () => {
    const { stdout } = await world.run(['-h']);
    assert.equal(stdout, (await world.run(['--help'])).stdout);
    for (const line of stdout.split('\n')) assert.ok(line.length < 80, line);
    for (const name of ['LIVESNAP_STORE', 'LIVESNAP_DEBUG', 'XDG_RUNTIME_DIR', 'NO_COLOR'])
      assert.match(stdout, new RegExp(`^  ${name} `, 'm'));
    for (const status of new Set([0, ...Object.values(ERROR_CODES)]))
      assert.match(stdout, new RegExp(`^  ${status} `, 'm'));
  });

  it('runs the verb of an alias, and names the alias in the help of the verb', async () => {
    for (const [alias, { verb }] of ALIASES) {
      const { status, stdout } = await world.run([alias, '-h']);
      assert.equal(status, 0);
      assert.equal(stdout, (await world.run([verb, '--help'])).stdout);
      assert.match(stdout, new RegExp(`^Alias: ${alias}`, 'm'));
    }
    const killed = await world.fails(3, 'NO_SUCH_MACHINE', ['kill', 'nobody']);
    assert.match(killed.message, /nobody/);
  });

  it('answers a word of another tool with the command to use', async () => {
    const { message, hint } = await world.fails(2, 'USAGE', ['prune']);
    assert.deepEqual([message, hint], ["unknown verb 'prune'", 'To delete unreferenced data: livesnap gc']);
  });

  it('uses colors on a terminal, unless NO_COLOR or CI is set or the terminal is dumb', () => {
    const onTerminal = (env: NodeJS.ProcessEnv, args = 'prune'): string => {
      const command = `"${process.execPath}" "${MAIN}" ${args}`;
      return spawnSync('script', ['-qefc', command, '/dev/null'], {
        env: { ...world.env, TERM: 'xterm-256color', FORCE_COLOR: undefined, CI: undefined, ...env },
        encoding: 'utf8',
        input: '',
      }).stdout;
    };
    const hint = 'To delete unreferenced data: livesnap gc';
    const shown = onTerminal({ NO_COLOR: undefined });
    assert.ok(shown.includes(`\x1b[2m${hint}\x1b[22m`), shown);
    assert.ok(shown.includes("\x1b[31mlivesnap:\x1b[39m unknown verb 'prune'"), shown);
    for (const env of [{ NO_COLOR: '1' }, { CI: 'true' }, { TERM: 'dumb' }]) {
      const plain = onTerminal({ NO_COLOR: undefined, ...env });
      assert.ok(plain.includes(hint) && !plain.includes('\x1b['), plain);
    }
    assert.ok(onTerminal({ NO_COLOR: undefined }, 'ps').startsWith('\x1b[1mNAME\x1b[22m '));
    assert.equal(onTerminal({ NO_COLOR: undefined }, 'ps --json').trim(), '[]');
  });

  it('asks for a unit if --memory is a small number', async () => {
    const { hint } = await world.fails(2, 'USAGE', ['start', '--kernel', '/dev/null', '--memory', '512']);
    assert.equal(hint, 'Did you mean 512M?');
  });

  it('shows its version', async () => {
    for (const option of ['--version', '-V', '-v'])
      assert.match((await world.run([option])).stdout, /^\d+\.\d+\.\d+\n$/);
  });

  it('shows its help on stderr if there are no arguments', async () => {
    const { status, stdout, stderr } = await world.run([]);
    assert.equal(status, 2);
    assert.equal(stdout, '');
    assert.match(stderr, /^Usage: livesnap VERB \[options\] \[arguments\]\n/);
    assert.match((await world.run(['--quiet'])).stderr, /^livesnap: no verb is given$/m);
    assert.match((await world.run(['help', 'save'])).stdout, /^Usage: livesnap save/);
  });

  it('takes common options before the verb', async () => {
    const { status, stdout } = await world.run(['--json', '--store', '/nowhere', 'stop', 'nobody']);
    assert.equal(status, 3);
    assert.equal(JSON.parse(stdout).error.code, 'NO_SUCH_MACHINE');
  });

  it('names a machine that does not exist', async () => {
    for (const verb of ['console', 'pause', 'resume', 'stop', 'save'])
      assert.match((await world.fails(3, 'NO_SUCH_MACHINE', [verb, 'nobody'])).message, /nobody/);
    assert.deepEqual(await world.json('ps'), []);
  });

  it('names a kernel or initrd that does not exist or is no regular file', async () => {
    const exists = process.execPath;
    const missing = await world.fails(3, 'NO_SUCH_FILE', ['start', '--kernel', '/no/kernel']);
    assert.equal(missing.message, 'kernel /no/kernel does not exist');
    await world.fails(3, 'NO_SUCH_FILE', ['start', '--kernel', exists, '--initrd', '/no/initrd']);
    const directory = await world.fails(1, 'BAD_IMAGE', ['start', '--kernel', '/etc']);
    assert.deepEqual(
      [directory.message, directory.hint],
      ['kernel /etc is a directory', 'Specify a regular file.'],
    );
    const device = await world.fails(1, 'BAD_IMAGE', ['start', '--kernel', exists, '--initrd', '/dev/null']);
    assert.equal(device.message, 'initrd /dev/null is not a regular file');
    assert.deepEqual(world.machines(), []);
  });

  it('loads only the called verb', async () => {
    for (const args of [['ps'], ['--version'], ['--help'], ['ps', '--help']]) {
      const { files, modules } = await world.loadedBy(...args);
      assert.ok(modules.length > 0);
      assert.deepEqual(
        [...VERBS.keys()].filter((name) => modules.includes(`src/cli/${name}.ts`)),
        VERBS.has(args[0]!) ? [args[0]] : [],
      );
      for (const heavy of ['src/store/store.ts', 'src/native/addon.ts', 'node_modules/cli-progress/'])
        assert.ok(!modules.some((file) => file.includes(heavy)), `${args.join(' ')} loads ${heavy}`);
      assert.ok(!files.some((file) => file.includes('/node_modules/')), files.join());
    }
    const { files, modules } = await world.loadedBy('ls', '--store', join(world.dir, 'none'));
    assert.ok(modules.includes('src/cli/ls.ts') && modules.includes('src/store/list.ts'));
    assert.ok(!modules.includes('src/store/store.ts'), 'a list needs the index alone');
    assert.ok(files.some((file) => /\/better-sqlite3(-node20)?\//.test(file)));
  });

  for (const [args, message] of MORE) refuses(args, message);
  for (const { name, summary, verb } of verbs)
    describe(name, () => {
      it('has a summary of one line, and help with its options', async () => {
        assert.equal(verb.name, name);
        assert.match(summary, /^[A-Z].{3,58}[^.]$/);
        const { status, stdout } = await world.run([name, '--help']);
        assert.equal(status, 0);
        assert.ok(stdout.startsWith(`Usage: livesnap ${name} ${verb.usage ?? '[options]'}`));
        for (const line of stdout.split('\n')) assert.ok(line.length <= 80, line);
        for (const option of ['--json', '-q, --quiet', '-h, --help'])
          assert.ok(stdout.includes(`  ${option}  `), option);
        assert.equal(stdout.includes('  --store <dir>  '), verb.usesStore !== false, '--store');
        for (const option of Object.values(verb.options))
          assert.equal(stdout.includes(`  ${option.flags}  `), !option.hidden, option.flags);
      });

      it('has a wrong value in this test for each option that parses one', () => {
        assert.deepEqual(
          Object.keys(WRONG_VALUES[name] ?? {}),
          parsing(verb).map(([key]) => key),
        );
      });

      for (const [args, message] of wrongInput(name, verb)) refuses(args, message);
    });
});
