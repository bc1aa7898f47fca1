/**
 * Runs the built command line for tests, with a temporary run directory and store. `end` stops all machines that a test
 * leaves behind.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { projectRoot } from '../../src/native/addon.js';
import { probe, requireKvm } from '../kvm/kvm.js';
import { limit } from '../timeouts.js';

export const MAIN = join(projectRoot, 'dist/bin/livesnap.js');

/** Bundles older than the code would test what nobody runs. */
function requireFreshBundles(): void {
  if (!existsSync(join(projectRoot, '.git'))) return;
  const sources = (readdirSync(join(projectRoot, 'src'), { recursive: true }) as string[])
    .filter((file) => file.endsWith('.ts'))
    .map((file) => statSync(join(projectRoot, 'src', file)).mtimeMs);
  const bundledMs = statSync(MAIN, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  assert.ok(bundledMs > Math.max(...sources), 'dist/bin is older than src: run npm run build');
}
requireFreshBundles();

export interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class World {
  readonly dir = mkdtempSync(join(tmpdir(), 'livesnap-e2e-'));
  readonly runDir = join(this.dir, 'run');
  readonly store = join(this.dir, 'store');
  readonly env: NodeJS.ProcessEnv;

  constructor() {
    mkdirSync(this.runDir, { mode: 0o700 });
    const { LIVESNAP_DEBUG: _, ...env } = process.env;
    this.env = {
      ...env,
      XDG_RUNTIME_DIR: this.runDir,
      XDG_CACHE_HOME: join(this.dir, 'cache'),
      XDG_STATE_HOME: join(this.dir, 'state'),
      XDG_CONFIG_HOME: join(this.dir, 'config'),
      LIVESNAP_STORE: this.store,
    };
  }

  spawn(...args: string[]): ChildProcess {
    return spawn(process.execPath, [MAIN, ...args], { env: this.env, stdio: ['pipe', 'pipe', 'pipe'] });
  }

  /** The token that requests over TCP need. */
  token(): string {
    return readFileSync(join(this.dir, 'state/livesnap/token'), 'utf8').trim();
  }

  run(args: readonly string[], input = ''): Promise<Ran> {
    const child = this.spawn(...args);
    child.stdin!.on('error', () => {});
    child.stdin!.end(input);
    return ending(child);
  }

  /** Runs with --json; fails the test unless the command succeeds. */
  async json<T = Record<string, unknown>>(...args: string[]): Promise<T> {
    const ran = await this.run([...args, '--json']);
    assert.equal(ran.status, 0, `livesnap ${args.join(' ')}: ${ran.stdout}${ran.stderr}`);
    return JSON.parse(ran.stdout) as T;
  }

  /** What a command loads: files, and modules of its bundle, which are functions there that have the names of files. */
  async loadedBy(...args: string[]): Promise<{ files: string[]; modules: string[] }> {
    const coverage = mkdtempSync(join(this.dir, 'coverage-'));
    const child = spawn(process.execPath, [MAIN, ...args], {
      env: { ...this.env, NODE_V8_COVERAGE: coverage },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    await ending(child);
    const scripts: { url: string; functions: { functionName: string; ranges: { count: number }[] }[] }[] = [];
    for (const report of readdirSync(coverage))
      scripts.push(...JSON.parse(readFileSync(join(coverage, report), 'utf8')).result);
    return {
      files: scripts.map(({ url }) => url).filter((url) => url.startsWith('file:')),
      modules: scripts
        .flatMap(({ functions }) => functions)
        .filter(({ functionName, ranges }) => /[/].*[.][cjt]s$/.test(functionName) && ranges[0]!.count > 0)
        .map(({ functionName }) => functionName),
    };
  }

  /** Starts a machine of 64 MiB in the background, with the probe guest unless another kernel is given. */
  start<T = Record<string, unknown>>(
    name: string,
    more: readonly string[] = [],
    kernel = probe('probe.elf'),
  ): Promise<T> {
    return this.json<T>(
      ...['start', '--kernel', kernel, '--memory', '64M', '--detach', '--name', name],
      ...more,
    );
  }

  /**
   * Runs with --json and without it. Both must fail with the same error, which is returned.
   * `atOnce`: run both at the same time, for commands that are refused before they do anything.
   */
  async fails(
    status: number,
    code: string,
    args: readonly string[],
    atOnce = false,
  ): Promise<{ message: string; hint: string }> {
    const json = this.run([...args, '--json']);
    if (!atOnce) await json;
    const [asJson, plain] = await Promise.all([json, this.run(args)]);
    const text = `livesnap ${args.join(' ')}: ${asJson.stdout}${asJson.stderr}`;
    assert.equal(asJson.status, status, text);
    const { error } = JSON.parse(asJson.stdout);
    assert.equal(error.code, code, text);
    assert.equal(plain.status, status, plain.stderr);
    assert.equal(plain.stdout, '');
    const [sentence, ...hint] = plain.stderr.trimEnd().split('\n');
    assert.equal(sentence, `livesnap: ${error.message}`, plain.stderr);
    assert.ok(hint.length <= 1, plain.stderr);
    return error;
  }

  /** Sends the probe guest a line and resolves to the line that answers it. */
  async ask(machine: string, line: string, answer: RegExp): Promise<string> {
    const ran = await this.run(
      ['console', machine, '--until', answer.source, '--timeout', String(limit(60))],
      `${line}\n`,
    );
    assert.equal(ran.status, 0, `${line}: ${ran.stdout}${ran.stderr}`);
    return ran.stdout.trimEnd().split('\n').at(-1)!.trim();
  }

  /** The names of the existing run directories. */
  machines(): string[] {
    try {
      return readdirSync(join(this.runDir, 'livesnap'));
    } catch {
      return [];
    }
  }

  async end(): Promise<void> {
    for (const name of this.machines()) await this.run(['stop', name]);
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Gives each test of a suite that runs machines a world of its own. */
export function worldOfEachTest(use: (world: World) => void): void {
  let world: World;
  before(function () {
    requireKvm(this);
  });
  beforeEach(() => {
    world = new World();
    use(world);
  });
  afterEach(() => world.end());
}

/** The same, for a suite that calls the library in this process: it has the environment of the world. */
export function libraryWorldOfEachTest(use: (world: World) => void = () => {}): void {
  let before: NodeJS.ProcessEnv;
  worldOfEachTest((world) => {
    before = process.env;
    process.env = { ...before, ...world.env };
    use(world);
  });
  afterEach(() => {
    process.env = before;
  });
}

export function ending(child: ChildProcess): Promise<Ran> {
  let stdout = '';
  let stderr = '';
  child.stdout!.setEncoding('utf8').on('data', (part) => {
    stdout += part;
  });
  child.stderr!.setEncoding('utf8').on('data', (part) => {
    stderr += part;
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status) => resolve({ status, stdout, stderr }));
  });
}

/** Resolves to the output when it matches. */
export function hearing(child: ChildProcess, which: 'stdout' | 'stderr', pattern: RegExp): Promise<string> {
  let heard = '';
  return new Promise((resolve, reject) => {
    child[which]!.on('data', (part) => {
      heard += part;
      if (pattern.test(heard)) resolve(heard);
    });
    child.once('close', () => reject(new Error(`ended without ${pattern}: ${heard}`)));
  });
}
