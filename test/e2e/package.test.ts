/** The npm package: packed, installed in an empty directory without install scripts, and used. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { projectRoot } from '../../src/native/project-root.js';
import { requireKvm } from '../kvm/kvm.js';
import { World } from './cli.js';

/** With code caches for three versions of Node. With one it has 1.6 MB less. */
const MAX_TARBALL_BYTES = 8_000_000;
const NODE_MODULES = 'node_modules/livesnap';

interface Packed {
  filename: string;
  size: number;
  files: { path: string; mode: number }[];
}

/** The environment outside `npm test`, which tells its children which project is theirs. */
const outside = (): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('npm_')));

describe('the npm package', function () {
  this.timeout(300_000);
  let base: string;
  let packed: Packed;
  /** An empty directory with the package installed. */
  let dir: string;
  let world: World;

  before(function () {
    base = mkdtempSync(join(tmpdir(), 'livesnap-package-'));
    const options = { cwd: projectRoot, encoding: 'utf8', env: outside() } as const;
    execFileSync(process.execPath, ['scripts/prebuild.mjs', '--this-node'], options);
    // Without scripts, because dist/ is what the tests run.
    const pack = ['pack', '--ignore-scripts', '--json', '--pack-destination', base];
    const reported = JSON.parse(execFileSync('npm', pack, options)) as Packed[] | Record<string, Packed>;
    packed = Object.values(reported)[0]!;
    dir = join(base, 'empty');
    mkdirSync(dir);
    const install = ['install', '--ignore-scripts', '--prefer-offline', join(base, packed.filename)];
    const installed = spawnSync('npm', install, { cwd: dir, encoding: 'utf8', env: outside() });
    if (/\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|ETIMEDOUT|ENOTCACHED)\b/.test(installed.stderr)) {
      process.stderr.write('    SKIPPED, not tested: the npm registry cannot be reached\n');
      this.skip();
    }
    assert.equal(installed.status, 0, installed.stderr);
  });
  after(() => rmSync(base, { recursive: true, force: true }));
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  /** Runs the installed command with --json. */
  function livesnap(args: readonly string[], env: NodeJS.ProcessEnv = {}, cwd = dir) {
    const path = `${dirname(process.execPath)}:${process.env.PATH}`;
    const { status, stdout, stderr } = spawnSync('node_modules/.bin/livesnap', [...args, '--json'], {
      cwd,
      env: { ...world.env, PATH: path, ...env },
      encoding: 'utf8',
    });
    assert.notEqual(stdout, '', stderr);
    return { status, result: JSON.parse(stdout) };
  }

  const checkOf = (
    name: string,
    env?: NodeJS.ProcessEnv,
    cwd?: string,
  ): { message: string; remedy: string } =>
    livesnap(['doctor'], env, cwd).result.checks.find((check: { name: string }) => check.name === name);

  /** A copy of the installation, to be damaged. */
  function copyOfInstallation(): string {
    const copy = join(world.dir, 'copy');
    cpSync(dir, copy, { recursive: true, verbatimSymlinks: true });
    return copy;
  }

  it('has every entry, no tests, and little else', async () => {
    const { ENTRIES } = (await import(join(projectRoot, 'scripts/bundle.mjs'))) as {
      ENTRIES: Record<string, string>;
    };
    const paths = packed.files.map(({ path }) => path);
    for (const name of Object.keys(ENTRIES)) assert.ok(paths.includes(`dist/bin/${name}.js`), name);
    for (const path of [
      'prebuilds/linux-x64/livesnap.node',
      'guest/build/demo-init',
      'guest/build/probe.bzImage',
      'scripts/linux-guest',
    ])
      assert.ok(paths.includes(path), path);
    for (const path of paths)
      assert.doesNotMatch(path, /^(src|test|bench|dist\/(test|bench))\/|addon\/build|(?<!\.d)\.ts$/);
    assert.ok(packed.size < MAX_TARBALL_BYTES, `the tarball has ${packed.size} bytes`);
  });

  it('is a library with types: a TypeScript program of 20 lines starts, types, saves and forks five', function () {
    requireKvm(this);
    const program = `
      import { connect } from 'livesnap';

      const host = await connect();
      await using machine = await host.start({ kernel: process.argv[2]!, memoryBytes: 32 << 20, name: 'web' });
      await using console = await machine.console();
      await console.write('fill 1 4\\n');
      await console.waitFor(/^OK fill/, { timeoutMs: 60_000 });
      const { id } = await machine.save({ tags: ['ready'] });

      const forked = await host.fork(id, { count: 5, name: 'copy' });
      for (const each of forked) {
        if ('error' in each) throw each.error;
        await using copy = each.machine;
        await using output = await copy.console();
        const [, count] = (await output.waitFor(/^TICK/, { timeoutMs: 60_000 })).split(' ');
        if (!(Number(count) > 0)) throw new Error('it does not count on');
        process.stdout.write(copy.name + '\\n');
      }`;
    assert.ok(program.trim().split('\n').length <= 20);
    writeFileSync(join(dir, 'program.mts'), program);
    const env = { ...outside(), ...world.env };
    const run = (...command: string[]): string => {
      const ran = spawnSync(process.execPath, command, { cwd: dir, encoding: 'utf8', env });
      assert.equal(ran.status, 0, `${ran.stdout}${ran.stderr}`);
      return ran.stdout;
    };
    const types = join(projectRoot, 'node_modules/@types');
    run(
      join(projectRoot, 'node_modules/typescript/bin/tsc'),
      ...['--strict', '--module', 'nodenext', '--target', 'es2022', '--lib', 'es2022,esnext.disposable'],
      ...['--typeRoots', types, '--types', 'node', 'program.mts'],
    );
    const kernel = join(dir, NODE_MODULES, 'guest/build/probe.bzImage');
    assert.equal(run('program.mjs', kernel), [1, 2, 3, 4, 5].map((n) => `copy-${n}\n`).join(''));
    assert.deepEqual(world.machines(), [], 'disposing of them has ended them');
  });

  it('compiles the program of docs/library.md with the tsconfig.json there', () => {
    const page = readFileSync(join(projectRoot, 'docs/library.md'), 'utf8');
    const block = (language: string): string =>
      new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'ms').exec(page)![1]!;
    const project = join(dir, 'documented');
    mkdirSync(project);
    writeFileSync(join(project, 'package.json'), '{ "type": "module" }');
    writeFileSync(join(project, 'program.ts'), block('ts'));
    writeFileSync(join(project, 'tsconfig.json'), block('json'));
    const tsc = join(projectRoot, 'node_modules/typescript/bin/tsc');
    // As `tsc --init` has it.
    const strict = ['--noUncheckedIndexedAccess', '--exactOptionalPropertyTypes'];
    const types = ['--typeRoots', join(projectRoot, 'node_modules/@types')];
    const ran = spawnSync(process.execPath, [tsc, ...types, ...strict], { cwd: project, encoding: 'utf8' });
    assert.equal(ran.status, 0, ran.stdout);
    assert.ok(existsSync(join(project, 'program.js')));
  });

  it('has no install script, and no dependency that has one', () => {
    const { scripts } = JSON.parse(readFileSync(join(dir, NODE_MODULES, 'package.json'), 'utf8'));
    for (const name of ['preinstall', 'install', 'postinstall']) assert.equal(scripts[name], undefined, name);
    const lock = JSON.parse(readFileSync(join(dir, 'package-lock.json'), 'utf8'));
    for (const [path, { hasInstallScript }] of Object.entries<{ hasInstallScript?: boolean }>(lock.packages))
      assert.equal(hasInstallScript, undefined, path);
  });

  it('is complete for doctor', () => {
    const { checks } = livesnap(['doctor']).result;
    for (const name of [
      'node',
      'addon',
      'better-sqlite3',
      'lz4-napi',
      'xxhash-wasm',
      '@noble/hashes',
      'guest',
    ])
      assert.equal(checks.find((check: { name: string }) => check.name === name).state, 'ok', name);
  });

  it('runs with npx', () => {
    const npx = spawnSync('npx', ['--no-install', 'livesnap', '--version'], {
      cwd: dir,
      encoding: 'utf8',
      env: outside(),
    });
    assert.equal(npx.stdout, '0.1.0\n', npx.stderr);
  });

  it('stores files and reads them', () => {
    const file = join(world.dir, 'file');
    writeFileSync(file, Buffer.alloc(3 << 20, 'some text '));
    assert.equal(livesnap(['put', file, '--tag', 'first']).status, 0);
    assert.equal(livesnap(['get', 'first', join(world.dir, 'out')]).status, 0);
    assert.ok(readFileSync(join(world.dir, 'out')).equals(readFileSync(file)));
    assert.equal(livesnap(['check', '--read-data']).status, 0);
  });

  it('runs the demo', function () {
    requireKvm(this);
    const { status, result } = livesnap(['demo']);
    assert.equal(status, 0);
    assert.equal(result.clones, 5);
  });

  it('runs the bundled guest, saves and restores it', async function () {
    requireKvm(this);
    const run = (...args: string[]) => assert.equal(livesnap(args).status, 0, args.join(' '));
    const kernel = join(dir, NODE_MODULES, 'guest/build/probe.bzImage');
    run('start', '--kernel', kernel, '--memory', '64M', '--detach', '--name', 'a');
    const nonceOf = async (name: string) =>
      /nonce=.*/.exec(await world.ask(name, '', /^TICK \d+ nonce=[0-9a-f]{16}$/))![0];
    const nonce = await nonceOf('a');
    run('save', 'a', '--tag', 'first');
    run('stop', 'a');
    run('restore', 'first', '--detach', '--name', 'b');
    assert.equal(await nonceOf('b'), nonce);
    run('stop', 'b');
  });

  it('uses an addon that was built in its directory first', () => {
    const copy = copyOfInstallation();
    const release = join(copy, NODE_MODULES, 'addon/build/Release');
    mkdirSync(release, { recursive: true });
    writeFileSync(join(release, 'livesnap.node'), 'stump');
    const { message, remedy } = checkOf('addon', {}, copy);
    assert.match(message, /addon\/build\/Release\/livesnap\.node/);
    assert.equal(remedy, `Run npm run build:native in ${join(copy, NODE_MODULES)}.`);
  });

  it('says that its addon does not fit a system with musl', () => {
    // A library that is named like musl's loader.
    const loader = join(world.dir, 'ld-musl-x86_64.so.1');
    execFileSync('gcc', ['-shared', '-o', loader, '-x', 'c', '/dev/null']);
    const { message, remedy } = checkOf('addon', { LD_PRELOAD: loader });
    assert.equal(message, 'the C++ addon is not built');
    assert.match(
      remedy,
      /^The package has it for glibc only, and this system uses musl\. Run npm run build:native in /,
    );
  });

  it('says how a missing package is installed', () => {
    const copy = copyOfInstallation();
    rmSync(join(copy, 'node_modules/xxhash-wasm'), { recursive: true });
    const { message, remedy } = checkOf('xxhash-wasm', {}, copy);
    assert.match(message, /^xxhash-wasm is not installed/);
    assert.equal(remedy, 'Install livesnap again.');
  });

  it('can be read by every user', () => {
    for (const { path, mode } of packed.files) assert.equal(mode & 0o444, 0o444, path);
    assert.equal(statSync(join(dir, NODE_MODULES, 'bin/livesnap')).mode & 0o111, 0o111);
    assert.ok(!existsSync(join(dir, NODE_MODULES, 'package-lock.json')));
  });
});

describe('the check of what a binary needs', () => {
  it('finds symbols of a newer C library, and other libraries', async () => {
    const { misfits } = (await import(join(projectRoot, 'scripts/prebuild.mjs'))) as {
      misfits(dump: string): string[];
    };
    const fits = `
  NEEDED               libstdc++.so.6
  NEEDED               libc.so.6
  NEEDED               ld-linux-x86-64.so.2
0000000000000000      DF *UND*  0000000000000000 (GLIBC_2.2.5) memcpy
0000000000000000      DF *UND*  0000000000000000 (GLIBC_2.34) pthread_create
0000000000000000      DF *UND*  0000000000000000 (GLIBCXX_3.4) _ZNSt`;
    assert.deepEqual(misfits(fits), []);
    const newer = `${fits}
  NEEDED               libssl.so.3
0000000000000000      DF *UND*  0000000000000000 (GLIBC_2.38) __isoc23_strtol
0000000000000000      DF *UND*  0000000000000000 (GLIBC_2.34.1) x
0000000000000000      DF *UND*  0000000000000000 (GLIBCXX_3.4.30) _ZNSt`;
    assert.deepEqual(misfits(newer), ['GLIBC_2.38', 'GLIBC_2.34.1', 'GLIBCXX_3.4.30', 'libssl.so.3']);
  });
});
