/** Damaged installations: doctor and the verbs report the module that cannot be loaded. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { projectRoot } from '../../src/native/project-root.js';
import { probe, requireKvm } from '../kvm/kvm.js';
import { bzImage, elfKernel, lz4Payload } from '../unit/vmm/boot/kernel-fixtures.js';
import { World } from './cli.js';

/** A compiled module for an old Node: it registers itself with NODE_MODULE_VERSION 83. */
const OLD_MODULE = `
  struct { int version; unsigned flags; void *handle; const char *file; void *init; void *init_context;
           const char *name; void *data; void *next; } module = {83, 0, 0, "old.c", 0, 0, "old", 0, 0};
  void node_module_register(void *);
  __attribute__((constructor)) static void add(void) { node_module_register(&module); }`;

describe('an installation', () => {
  let world: World;
  let root: string;
  beforeEach(() => {
    world = new World();
    root = join(world.dir, 'livesnap');
    mkdirSync(join(root, 'node_modules'), { recursive: true });
    mkdirSync(join(root, 'dist'));
    cpSync(join(projectRoot, 'dist/src'), join(root, 'dist/src'), { recursive: true });
    for (const name of ['package.json', 'migrations', 'addon', 'guest'])
      symlinkSync(join(projectRoot, name), join(root, name));
    for (const name of readdirSync(join(projectRoot, 'node_modules')))
      symlinkSync(join(projectRoot, 'node_modules', name), join(root, 'node_modules', name));
  });
  afterEach(() => world.end());

  /** Runs this installation's command line with --json. */
  function run(...args: string[]) {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [join(root, 'dist/src/cli/main.js'), ...args, '--json'],
      { env: world.env, encoding: 'utf8' },
    );
    assert.notEqual(stdout, '', stderr);
    return { status, result: JSON.parse(stdout) };
  }

  /** Replaces a linked file or directory by a copy, without the files that `leaveOut` matches. */
  function unlink(path: string, leaveOut = /^$/): string {
    const own = join(root, path);
    rmSync(own);
    mkdirSync(dirname(own), { recursive: true });
    cpSync(join(projectRoot, path), own, { recursive: true, filter: (source) => !leaveOut.test(source) });
    return own;
  }

  /** Doctor reports this check, with the same message as the verb. */
  function assertFound(check: string, message: RegExp, hint: RegExp, verb?: string[]): void {
    const doctor = run('doctor');
    assert.equal(doctor.status, 5);
    const found = doctor.result.checks.find(({ name }: { name: string }) => name === check);
    assert.match(found.message, message);
    assert.match(found.remedy, hint);
    if (verb === undefined) return;
    const { status, result } = run(...verb);
    assert.equal(status, 1);
    assert.equal(result.error.code, 'SYSTEM');
    assert.deepEqual([result.error.message, result.error.hint], [found.message, found.remedy]);
  }

  it('that is complete passes the checks of its modules', () => {
    const { result } = run('doctor');
    const modules = ['addon', 'better-sqlite3', 'lz4-napi', 'xxhash-wasm'];
    assert.deepEqual(
      result.checks
        .filter(({ name }: { name: string }) => modules.includes(name))
        .map(({ name, state }: { name: string; state: string }) => [name, state]),
      modules.map((name) => [name, 'ok']),
    );
  });

  /** Installs a better-sqlite3 that was compiled for another Node. */
  function installOldSqlite(): void {
    const module = unlink('node_modules/better-sqlite3', /better-sqlite3\/(build|deps|src)$/);
    mkdirSync(join(module, 'build/Release'), { recursive: true });
    writeFileSync(join(world.dir, 'old.c'), OLD_MODULE);
    execFileSync('gcc', [
      '-shared',
      '-fPIC',
      '-o',
      join(module, 'build/Release/better_sqlite3.node'),
      join(world.dir, 'old.c'),
    ]);
  }
  const OLD = /^better-sqlite3 was built for another version of Node: it has NODE_MODULE_VERSION 83, Node /;
  const REBUILD = /^Run npm rebuild in \//;

  it('that was built for another Node asks for npm rebuild', () => {
    installOldSqlite();
    for (const verb of [['ls'], ['put', '/etc/hostname']]) assertFound('better-sqlite3', OLD, REBUILD, verb);
  });

  it('that was built for another Node starts machines, and a save asks for npm rebuild', function () {
    requireKvm(this);
    installOldSqlite();
    assert.equal(run('start', '--kernel', probe('probe.elf'), '--detach', '--name', 'a').status, 0);
    const { status, result } = run('save', 'a');
    assert.deepEqual([status, result.error.code], [1, 'SYSTEM']);
    assert.match(result.error.message, OLD);
    assert.match(result.error.hint, REBUILD);
    assert.equal(run('stop', 'a').status, 0);
  });

  it('without better-sqlite3 asks for npm ci', () => {
    rmSync(join(root, 'node_modules/better-sqlite3'));
    assertFound('better-sqlite3', /^better-sqlite3 is not installed/, /^Run npm ci in \//, ['ls']);
  });

  it('whose addon is truncated asks for npm run build:native', () => {
    const addon = unlink('addon', /addon\/build\/Release\/(obj\.target|\.deps)$/);
    writeFileSync(join(addon, 'build/Release/livesnap.node'), 'stump');
    assertFound(
      'addon',
      /^the C\+\+ addon cannot be loaded: .*livesnap\.node/,
      /^Run npm run build:native in \//,
      ['ls'],
    );
  });

  it('without xxhash-wasm asks for npm ci', () => {
    rmSync(join(root, 'node_modules/xxhash-wasm'));
    assertFound('xxhash-wasm', /^xxhash-wasm is not installed/, /^Run npm ci in \//);
  });

  it('without the module of lz4-napi for this platform starts all but LZ4 kernels', function () {
    unlink('node_modules/lz4-napi');
    rmSync(join(root, 'node_modules/@antoniomuso'));
    requireKvm(this);
    const kernel = join(world.dir, 'bzImage');
    writeFileSync(kernel, bzImage(lz4Payload(elfKernel())));
    assertFound('lz4-napi', /^lz4-napi is not installed, or a part/, /^Run npm ci in \//, [
      'start',
      '--kernel',
      kernel,
      '--detach',
    ]);
    assert.equal(
      run('start', '--kernel', probe('probe.elf'), '--memory', '32M', '--detach', '--name', 'a').status,
      0,
    );
  });
});
