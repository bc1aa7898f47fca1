/** Damaged installations: doctor and the verbs report the module that cannot be loaded. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { projectRoot } from '../../src/native/project-root.js';
import { probe, requireKvm } from '../kvm/kvm.js';
import { bzImage, elfKernel, lz4Payload } from '../unit/vmm/boot/kernel-fixtures.js';
import { MAIN, World } from './cli.js';

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
    for (const part of ['dist/bin', 'dist/src'])
      cpSync(join(projectRoot, part), join(root, part), { recursive: true });
    for (const name of ['package.json', 'package-lock.json', 'migrations', 'addon', 'guest'])
      symlinkSync(join(projectRoot, name), join(root, name));
    for (const name of readdirSync(join(projectRoot, 'node_modules')))
      symlinkSync(join(projectRoot, 'node_modules', name), join(root, 'node_modules', name));
  });
  afterEach(() => world.end());

  /** Runs this installation's command line with --json. */
  function run(...args: string[]) {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [join(root, 'dist/bin/livesnap.js'), ...args, '--json'],
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
    const modules = ['addon', 'better-sqlite3', 'lz4-napi', 'xxhash-wasm', '@noble/hashes'];
    assert.deepEqual(
      result.checks
        .filter(({ name }: { name: string }) => modules.includes(name))
        .map(({ name, state }: { name: string; state: string }) => [name, state]),
      modules.map((name) => [name, 'ok']),
    );
  });

  it('names the lines of src in stacks with LIVESNAP_DEBUG=1', () => {
    const { stderr } = spawnSync(process.execPath, [join(root, 'dist/bin/livesnap.js'), 'ls'], {
      env: { ...world.env, LIVESNAP_DEBUG: '1' },
      encoding: 'utf8',
    });
    assert.match(stderr, /\/src\/store\/open-store\.ts:\d+/);
  });

  it('works with code caches that are missing, empty or of another V8', () => {
    const code = join(root, 'dist/bin/code');
    const caches = readdirSync(code).filter((name) =>
      name.endsWith(`.js.${Number.parseInt(process.versions.node, 10)}.cache`),
    );
    assert.equal(caches.length, 8);
    for (const spoil of [
      (file: string) => writeFileSync(file, Buffer.from(readFileSync(file)).fill(1, 4, 8)), // its version
      (file: string) => writeFileSync(file, ''),
      (file: string) => rmSync(file),
    ]) {
      for (const name of caches) spoil(join(code, name));
      assert.deepEqual(run('ps'), { status: 0, result: [] });
    }
  });

  /** Node 20 has a better-sqlite3 of its own, which is built here. */
  const isNode20 = process.versions.modules === '115';
  const SQLITE = `node_modules/better-sqlite3${isNode20 ? '-node20' : ''}`;

  /** Installs a better-sqlite3 that was compiled for another Node. */
  function installOldSqlite(): void {
    const module = unlink(SQLITE, /better-sqlite3[^/]*\/(build|deps|src)$/);
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
  const REBUILD = isNode20 ? /^Run npm run build:native in \// : /^Run npm ci in \//;

  it('that was built for another Node asks for a build', () => {
    installOldSqlite();
    for (const verb of [['ls'], ['put', '/etc/hostname']]) assertFound('better-sqlite3', OLD, REBUILD, verb);
  });

  it('that was built for another Node starts machines, and a save asks for a build', function () {
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
    rmSync(join(root, SQLITE));
    assertFound(
      'better-sqlite3',
      /^better-sqlite3 is not (installed|built for Node 20)/,
      /^Run npm ci in \//,
      ['ls'],
    );
  });

  it('whose addon is truncated asks for npm run build:native', () => {
    const addon = unlink('addon', /addon\/build\/Release\/(obj\.target|\.deps)$/);
    writeFileSync(join(addon, 'build/Release/livesnap.node'), 'stump');
    assertFound(
      'addon',
      /^the C\+\+ addon cannot be loaded: .*livesnap\.node/,
      /^Run npm run build:native in \//,
      ['stats'],
    );
  });

  describe('without the addon', () => {
    const MISSING = /the C\+\+ addon is not built/;
    const BUILD = /^Run npm run build:native in \/.* \(gcc, g\+\+, make and python3 are needed\)\.$/;
    const NOTE =
      'note: the addon is not built: the store is read without locks; do not write to it meanwhile\n';

    /** Runs a command line as it is given, from this installation or from the whole one. */
    function plain(main: string, args: readonly string[]) {
      const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], {
        env: world.env,
        encoding: 'utf8',
      });
      return { status, stdout, stderr };
    }

    /** A store with a file that has data, zeros and repetition. */
    beforeEach(async () => {
      const file = join(world.dir, 'file');
      const data = Buffer.alloc(3 << 20);
      for (let at = 0; at < 1 << 20; at += 4) data.writeUInt32LE((at * 2654435761) >>> 0, at);
      data.fill('the quick brown fox ', 2 << 20, (2 << 20) + 300_000);
      writeFileSync(file, data);
      await world.json('put', file, '--tag', 'first');
      writeFileSync(file, 'changed', { flag: 'r+' });
      await world.json('put', file, '--tag', 'second');
      unlink('addon', /addon\/build$/);
    });

    for (const [name, args] of Object.entries({
      ls: ['ls'],
      'show first': ['show', 'first'],
      stats: ['stats'],
      check: ['check'],
      'check --read-data': ['check', '--read-data'],
    }))
      for (const format of [[], ['--json']])
        it(`prints the same for ${[name, ...format].join(' ')}, and one note`, () => {
          const main = join(root, 'dist/bin/livesnap.js');
          const whole = plain(MAIN, [...args, ...format]);
          assert.deepEqual(whole, { status: 0, stdout: whole.stdout, stderr: '' });
          assert.deepEqual(plain(main, [...args, ...format]), { ...whole, stderr: NOTE });
          assert.equal(plain(main, [...args, ...format, '--quiet']).stderr, '');
        });

    it('gets the same file, to a new name, over an old one and to the standard output', () => {
      const main = join(root, 'dist/bin/livesnap.js');
      const wanted = readFileSync(join(world.dir, 'file'));
      for (const _ of ['new', 'old']) {
        const ran = plain(main, ['get', 'second', join(world.dir, 'out')]);
        assert.deepEqual([ran.status, ran.stderr], [0, NOTE]);
        assert.ok(readFileSync(join(world.dir, 'out')).equals(wanted));
      }
      const piped = spawnSync(process.execPath, [main, 'get', 'second', '-'], {
        env: world.env,
        maxBuffer: 8 << 20,
      });
      assert.equal(piped.stderr.toString(), NOTE);
      assert.ok(piped.stdout.equals(wanted));
    });

    it('exports the same snapshot, and resumes an interrupted export', () => {
      const main = join(root, 'dist/bin/livesnap.js');
      const exported = join(world.dir, 'exported');
      // As an export leaves it that ended just before the last step.
      assert.equal(plain(MAIN, ['export', 'second', exported]).status, 0);
      const [id] = plain(MAIN, ['ls', '--quiet', '--store', exported]).stdout.split('\n');
      mkdirSync(`${exported}.partial`);
      writeFileSync(`${exported}.partial/livesnap-export`, `${id}\n`);
      renameSync(exported, `${exported}.partial/store`);
      for (const to of [exported, join(world.dir, 'afresh')]) {
        const ran = plain(main, ['export', 'second', to]);
        assert.equal(ran.status, 0, ran.stderr);
        assert.equal(ran.stderr.split(NOTE).length, 2, ran.stderr);
        assert.equal(plain(MAIN, ['check', '--read-data', '--store', to]).status, 0);
        assert.equal(plain(MAIN, ['get', id!, join(world.dir, 'out'), '--store', to]).status, 0);
        assert.ok(
          readFileSync(join(world.dir, 'out')).equals(readFileSync(join(world.dir, 'file'))),
          `the file in ${to}`,
        );
      }
    });

    it('refuses an export to the same name while another is running, which stays complete', () => {
      const main = join(root, 'dist/bin/livesnap.js');
      const exported = join(world.dir, 'exported');
      const script = join(root, 'two-exports.mjs');
      writeFileSync(
        script,
        `import { spawnSync } from 'node:child_process';
        import { exportSnapshot } from './dist/src/store/remote/export.js';
        const [main, storeDir, to] = process.argv.slice(2);
        let other = null;
        const progress = (done) => {
          if (done > 0) other ??= spawnSync(process.execPath, [main, 'export', 'first', to, '--json'], { encoding: 'utf8' });
        };
        await exportSnapshot({ storeDir, ref: 'second', to, onPlan() {}, progress });
        console.log(JSON.parse(other.stdout).error.code);`,
      );
      assert.equal(plain(script, [main, world.store, exported]).stdout, 'STORE_BUSY\n');
      assert.equal(existsSync(`${exported}.partial`), false);
      const get = plain(MAIN, ['get', 'second', join(world.dir, 'out'), '--store', exported]);
      assert.deepEqual([get.status, get.stderr], [0, '']);
      assert.ok(readFileSync(join(world.dir, 'out')).equals(readFileSync(join(world.dir, 'file'))));
    });

    for (const platform of ['darwin', 'win32'])
      it(`reads and exports without procfs, on a platform that calls itself ${platform}`, function () {
        // Packages with compiled parts are loaded as on Linux, because only those parts are here.
        const preload = join(root, 'preload.mjs');
        writeFileSync(
          preload,
          `import { createRequire } from 'node:module';
          const require = createRequire(import.meta.url);
          require('lz4-napi');
          new (require('./${SQLITE}'))(':memory:').close();
          Object.defineProperty(process, 'platform', { value: '${platform}' });
          if (process.platform === 'win32')
            for (const name of ['getuid', 'geteuid', 'getgid', 'getegid']) delete process[name];`,
        );
        const elsewhere = (...args: string[]) =>
          spawnSync(
            'unshare',
            [
              ...['-m', 'sh', '-c', 'mount -t tmpfs none /proc && exec "$@"', 'sh', process.execPath],
              ...['--import', preload, join(root, 'dist/bin/livesnap.js'), ...args],
            ],
            { env: world.env, encoding: 'utf8' },
          );
        const listed = elsewhere('ls');
        if (listed.status !== 0 && /unshare|mount/.test(listed.stderr)) {
          process.stderr.write('    SKIPPED, not tested: /proc cannot be hidden here (root is needed)\n');
          this.skip();
        }
        assert.equal(listed.stdout, plain(MAIN, ['ls']).stdout);
        const [out, exported] = [join(world.dir, 'out'), join(world.dir, 'exported')];
        for (const args of [
          ['show', 'first'],
          ['stats'],
          ['check', '--read-data'],
          ['get', 'second', out], // a new file
          ['get', 'second', out], // in place of another
          ['export', 'second', exported],
        ]) {
          const { status, stderr } = elsewhere(...args);
          assert.equal(status, 0, `${args.join(' ')}: ${stderr}`);
          assert.ok(stderr.startsWith(NOTE), stderr);
        }
        assert.ok(readFileSync(out).equals(readFileSync(join(world.dir, 'file'))));
        assert.equal(plain(MAIN, ['check', '--read-data', '--store', exported]).status, 0);
        const written = elsewhere('put', out);
        assert.equal(written.status, 1);
        assert.match(written.stderr, MISSING);
        assert.match(written.stderr, /\nIt needs Linux on x86-64\. On this platform use ls, /);
      });

    it('checks a part of the data without recording it', () => {
      const ran = plain(join(root, 'dist/bin/livesnap.js'), ['check', '--read-data', '1/2']);
      assert.equal(ran.status, 0);
      assert.match(ran.stderr, /^The store cannot be written/m);
    });

    for (const args of [
      ['put', '/etc/hostname'],
      ['tag', 'first', 'third'],
      ['untag', 'first'],
      ['rm', 'first'],
      ['gc'],
      ['repair'],
      ['copy', 'first', '--to', 'ELSEWHERE'],
      ['copy', 'first', '--from', 'ELSEWHERE'],
    ])
      it(`refuses ${args.slice(0, args.length > 3 ? 3 : 1).join(' ')}, and says how the addon is built`, () => {
        const elsewhere = join(world.dir, 'elsewhere');
        const { status, result } = run(...args.map((arg) => (arg === 'ELSEWHERE' ? elsewhere : arg)));
        assert.equal(status, 1);
        assert.equal(result.error.code, 'READ_ONLY');
        assert.match(result.error.message, MISSING);
        assert.match(result.error.hint, BUILD);
        assert.deepEqual(plain(MAIN, ['ls', '--json']).stdout.match(/"tags":\["[a-z]+"\]/g), [
          '"tags":["first"]',
          '"tags":["second"]',
        ]);
      });

    it('refuses to start a machine, and makes no run directory', () => {
      const { status, result } = run('start', '--kernel', probe('probe.elf'), '--detach', '--name', 'a');
      assert.equal(status, 1);
      assert.equal(result.error.code, 'SYSTEM');
      assert.match(result.error.message, MISSING);
      assert.match(result.error.hint, BUILD);
      assert.deepEqual(world.machines(), []);
    });

    it('is found by doctor', () => {
      assertFound('addon', MISSING, BUILD);
    });
  });

  describe('without the tools that build the addon', () => {
    const script = join(projectRoot, 'scripts/build-native.mjs');
    const build = (...args: string[]) =>
      spawnSync(process.execPath, [script, ...args], { env: { PATH: world.dir }, encoding: 'utf8' });
    const WARNING =
      'the C++ addon cannot be built: gcc, make, g++, python3 not found. ' +
      `Without it only ls, show, stats, get, check and export work${isNode20 ? ', with Node 22.14 or newer' : ''}.\n`;

    it('succeeds with a warning', () => {
      const { status, stderr } = build('--optional');
      assert.deepEqual([status, stderr], [0, `livesnap: warning: ${WARNING}`]);
    });

    it('fails to build the addon when that is asked for', () => {
      const { status, stderr } = build();
      assert.deepEqual([status, stderr], [1, `livesnap: ${WARNING}`]);
    });
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
