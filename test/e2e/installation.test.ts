/** Installations of which a part cannot be loaded: what doctor finds, and what the verbs say. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { projectRoot } from '../../src/native/project-root.js';
import { probe, requireKvm } from '../kvm/kvm.js';
import { bzImage, elfKernel, lz4Payload } from '../unit/vmm/boot/kernel-fixtures.js';
import { World } from './cli.js';

/** A compiled part for the Node of long ago: it registers itself as such parts do, with NODE_MODULE_VERSION 83. */
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

  /** Replaces a linked file or directory by a copy of its own, without what `leaveOut` matches. */
  function unlink(path: string, leaveOut = /^$/): string {
    const own = join(root, path);
    rmSync(own);
    mkdirSync(dirname(own), { recursive: true });
    cpSync(join(projectRoot, path), own, { recursive: true, filter: (source) => !leaveOut.test(source) });
    return own;
  }

  /** Doctor finds the one thing wrong, and says the same as the verb. */
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

  it('that is whole has nothing wrong with its modules', () => {
    const { result } = run('doctor');
    const modules = ['addon', 'better-sqlite3', 'lz4-napi', 'xxhash-wasm'];
    assert.deepEqual(
      result.checks
        .filter(({ name }: { name: string }) => modules.includes(name))
        .map(({ name, state }: { name: string; state: string }) => [name, state]),
      modules.map((name) => [name, 'ok']),
    );
  });

  it('that was built for another Node says so, and to run npm rebuild', () => {
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
    for (const verb of [
      ['ls'],
      ['put', '/etc/hostname'],
      ['start', '--kernel', probe('probe.elf'), '--detach'],
    ])
      assertFound(
        'better-sqlite3',
        /^better-sqlite3 was built for another version of Node: it has NODE_MODULE_VERSION 83, Node /,
        /^Run npm rebuild in \//,
        verb,
      );
    assert.deepEqual(world.machines(), []);
  });

  it('without better-sqlite3 says so, and to run npm ci', () => {
    rmSync(join(root, 'node_modules/better-sqlite3'));
    assertFound('better-sqlite3', /^better-sqlite3 is not installed/, /^Run npm ci in \//, ['ls']);
  });

  it('whose addon is cut short says so, and how it is built', () => {
    const addon = unlink('addon', /addon\/build\/Release\/(obj\.target|\.deps)$/);
    writeFileSync(join(addon, 'build/Release/livesnap.node'), 'stump');
    assertFound(
      'addon',
      /^the C\+\+ addon cannot be loaded: .*livesnap\.node/,
      /^Run npm run build:native in \//,
      ['ls'],
    );
  });

  it('without xxhash-wasm says so', () => {
    rmSync(join(root, 'node_modules/xxhash-wasm'));
    assertFound('xxhash-wasm', /^xxhash-wasm is not installed/, /^Run npm ci in \//);
  });

  it('without the part of lz4-napi for this platform says so; only LZ4 kernels need it', function () {
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
