/** Other programs that save memory: QEMU, borg and restic. Each may be missing. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { closeSync, fsyncSync, openSync } from 'node:fs';
import { createInterface } from 'node:readline';

/** The peers that are not installed, with the package of Debian that has each. */
export function missingPeers(): string[] {
  const programs = { qemu: 'qemu-system-x86_64', borg: 'borg', restic: 'restic' };
  const packages = { qemu: 'qemu-system-x86', borg: 'borgbackup', restic: 'restic' };
  return Object.entries(programs)
    .filter(([, program]) => spawnSync(program, ['--version']).error !== undefined)
    .map(([peer]) => packages[peer as keyof typeof packages]);
}

function run(program: string, args: readonly string[], env: NodeJS.ProcessEnv): number {
  const begun = performance.now();
  const ran = spawnSync(program, args, { env: { ...process.env, ...env }, encoding: 'utf8' });
  if (ran.status !== 0) throw new Error(`${program} ${args.join(' ')}: ${ran.stderr}`);
  return performance.now() - begun;
}

/** A repository of a backup program. `backUp` gives milliseconds. */
export interface Repository {
  backUp(name: string, image: string): number;
}

/** Borg with LZ4, without encryption. Its caches are in the directory, so a new repository knows nothing. */
export function createBorg(dir: string): Repository {
  const env = { BORG_BASE_DIR: `${dir}-home`, BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: 'yes' };
  run('borg', ['init', '--encryption=none', dir], env);
  return {
    backUp: (name, image) => run('borg', ['create', '--compression=lz4', `${dir}::${name}`, image], env),
  };
}

/** Restic with its own compression. It cannot leave out encryption. */
export function createRestic(dir: string): Repository {
  const env = { RESTIC_PASSWORD: 'bench', RESTIC_CACHE_DIR: `${dir}-cache` };
  run('restic', ['init', '--repo', dir, '--repository-version=2'], env);
  return { backUp: (_, image) => run('restic', ['backup', '--repo', dir, image], env) };
}

/** A paused QEMU, controlled by QMP on its standard input and output. */
class Qemu {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(backend: string, ...args: string[]) {
    const fixed = ['-display', 'none', '-nodefaults', '-S', '-accel', 'tcg', '-qmp', 'stdio'];
    const machine = ['-machine', 'pc,memory-backend=ram', '-object', backend];
    this.#process = spawn('qemu-system-x86_64', [...fixed, ...machine, ...args], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#lines = createInterface({ input: this.#process.stdout! })[Symbol.asyncIterator]();
  }

  /** Waits for a message that `isWanted` accepts. */
  async wait(isWanted: (message: Record<string, unknown>) => boolean): Promise<void> {
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done) throw new Error('QEMU ended');
      const message = JSON.parse(value) as Record<string, unknown>;
      if (message.error !== undefined) throw new Error(`QEMU: ${value}`);
      if (isWanted(message)) return;
    }
  }

  send(execute: string, args: Record<string, unknown> = {}): void {
    this.#process.stdin!.write(`${JSON.stringify({ execute, arguments: args })}\n`);
  }

  async ask(execute: string, args: Record<string, unknown> = {}): Promise<void> {
    this.send(execute, args);
    await this.wait((message) => message.return !== undefined);
  }

  async prepare(): Promise<void> {
    await this.ask('qmp_capabilities');
    await this.ask('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
  }

  async migrated(): Promise<void> {
    await this.wait(({ event, data }) => {
      const status = event === 'MIGRATION' ? (data as { status: string }).status : '';
      if (status === 'failed') throw new Error('the migration of QEMU failed');
      return status === 'completed';
    });
  }

  async end(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once('exit', resolve));
    this.send('quit');
    await ended;
  }
}

const backend = (kind: string, bytes: number): string => `memory-backend-${kind},id=ram,size=${bytes}`;

/**
 * QEMU migrates a machine whose RAM is the image into a file, uncompressed. The guest does not run. Milliseconds until the
 * file is synced.
 */
export async function qemuSave(image: string, sizeBytes: number, target: string): Promise<number> {
  const qemu = new Qemu(
    `${backend('file', sizeBytes)},mem-path=${image},share=off,prealloc=on`,
    '-m',
    `${sizeBytes}B`,
  );
  await qemu.prepare();
  await qemu.ask('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
  const begun = performance.now();
  qemu.send('migrate', { uri: `exec:cat >'${target}'` });
  await qemu.migrated();
  const file = openSync(target, 'r');
  fsyncSync(file);
  closeSync(file);
  const ms = performance.now() - begun;
  await qemu.end();
  return ms;
}

/** Milliseconds from the start of QEMU until it has read all RAM of the file. */
export async function qemuRestore(sizeBytes: number, source: string): Promise<number> {
  const begun = performance.now();
  const qemu = new Qemu(backend('ram', sizeBytes), '-m', `${sizeBytes}B`, '-incoming', 'defer');
  await qemu.prepare();
  qemu.send('migrate-incoming', { uri: `exec:cat '${source}'` });
  await qemu.migrated();
  const ms = performance.now() - begun;
  await qemu.end();
  return ms;
}
