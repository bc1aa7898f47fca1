/**
 * Runs the commands of a page, in order, in one shell: in an empty folder, with the built livesnap on PATH, and with a
 * home directory of its own. Everything that they start has ended when it returns.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { stripVTControlCharacters } from 'node:util';
import { projectRoot } from '../../src/native/addon.js';
import { SshServer } from '../e2e/ssh-server.js';
import { type Page, patternOf, type Step } from './page.js';

/** Runs a command on a terminal, and types keys after its first output. */
const ON_TERMINAL = `
import os, pty, sys
keys, command = sys.argv[1].encode(), sys.argv[2]
pid, fd = pty.fork()
if pid == 0: os.execvp('bash', ['bash', '-c', command])
while True:
    try: part = os.read(fd, 65536)
    except OSError: break
    if not part: break
    sys.stdout.buffer.write(part)
    if keys: os.write(fd, keys)
    keys = b''
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;

/** Where programs of the system are. */
export const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** A user of a host: a home directory, and directories for machines and stores. */
function makeUser(dir: string): Record<string, string> {
  const home = join(dir, 'home');
  const runDir = join(dir, 'run');
  for (const each of [home, runDir]) mkdirSync(each, { recursive: true, mode: 0o700 });
  const binDir = join(dir, 'bin');
  mkdirSync(binDir);
  symlinkSync(join(projectRoot, 'bin/livesnap'), join(binDir, 'livesnap'));
  const path = [binDir, dirname(process.execPath), SYSTEM_PATH];
  return {
    HOME: home,
    XDG_RUNTIME_DIR: runDir,
    TMPDIR: dir,
    PATH: path.join(':'),
    LANG: 'C.UTF-8',
    TERM: 'dumb',
  };
}

export class PageRunner {
  private readonly dir = mkdtempSync(join(tmpdir(), 'livesnap-docs-'));
  private readonly env: Record<string, string>;
  private readonly otherEnv: Record<string, string>;
  private ssh: SshServer | null = null;
  private shell: ChildProcess | null = null;
  /** Where the command is that was begun last, and what it has printed so far. */
  private last = '';
  private lastOutputFile = '';

  constructor() {
    mkdirSync(join(this.dir, 'other'));
    this.env = makeUser(this.dir);
    this.otherEnv = makeUser(join(this.dir, 'other'));
  }

  /** From now on `ssh` reaches another host under any name: another home directory of this one. */
  async startSsh(): Promise<void> {
    this.ssh = await SshServer.start(this.otherEnv);
    this.env.PATH = `${this.ssh.binDir}:${this.env.PATH}`;
  }

  async run(name: string, { steps }: Page): Promise<void> {
    const work = join(this.dir, 'work');
    mkdirSync(work);
    // A process group of its own: commands of a page may run in the background.
    const shell = spawn('bash', ['--noprofile', '--norc'], {
      cwd: work,
      env: { ...this.env, PROJECT: projectRoot },
      stdio: ['pipe', 'inherit', 'inherit', 'pipe'],
      detached: true,
    });
    this.shell = shell;
    shell.stdin!.on('error', () => {});
    const statuses = createInterface({ input: shell.stdio[3] as NodeJS.ReadableStream })[
      Symbol.asyncIterator
    ]();
    shell.stdin!.write("set -E; trap 'failed=$?' ERR\n");
    for (const step of steps) {
      this.last = `${name}:${step.line}: ${step.commands}`;
      const { status, output } = await this.runStep(shell, statuses, step);
      compare(`${name}:${step.line}`, step, status, output);
    }
  }

  private async runStep(
    shell: ChildProcess,
    statuses: AsyncIterator<string>,
    { line, commands, keys }: Step,
  ): Promise<{ status: number; output: string }> {
    // A file of its own: commands in the background still write to earlier ones.
    const outputFile = join(this.dir, `output-${line}`);
    this.lastOutputFile = outputFile;
    let text = commands;
    if (keys !== null) {
      const terminal = join(this.dir, 'terminal.py');
      const command = join(this.dir, 'command');
      writeFileSync(terminal, ON_TERMINAL);
      writeFileSync(command, commands);
      text = `python3 ${terminal} $'${[...keys].map((key) => `\\x${key.charCodeAt(0).toString(16).padStart(2, '0')}`).join('')}' "$(cat ${command})"`;
    }
    shell.stdin!.write(`failed=0; {\n${text}\n} </dev/null >${outputFile} 2>&1; echo $failed >&3\n`);
    const { value, done } = await statuses.next();
    const output = stripVTControlCharacters(readFileSync(outputFile, 'utf8')).replaceAll('\r', '');
    assert.ok(!done, `the shell ended: ${output}`);
    return { status: Number(value), output };
  }

  /** For a command that does not end. */
  describeLast(): string {
    return `${this.last}\n${existsSync(this.lastOutputFile) ? readFileSync(this.lastOutputFile, 'utf8') : ''}`;
  }

  async end(): Promise<void> {
    const { shell } = this;
    if (shell?.pid !== undefined && shell.exitCode === null && shell.signalCode === null) {
      const gone = once(shell, 'exit');
      process.kill(-shell.pid, 'SIGKILL');
      await gone;
    }
    for (const env of [this.env, this.otherEnv]) {
      const livesnap = (...args: string[]): string =>
        execFileSync(process.execPath, [join(projectRoot, 'dist/bin/livesnap.js'), ...args, '--json'], {
          env,
          encoding: 'utf8',
          stdio: ['ignore', 'pipe', 'ignore'],
        });
      const names = (JSON.parse(livesnap('ps')) as { name: string }[]).map((machine) => machine.name);
      if (names.length > 0) livesnap('stop', '--force', '--discard', ...names);
    }
    await this.ssh?.end();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** A command succeeds, unless the page shows an error of livesnap as its output. */
export function compare(
  place: string,
  { commands, output: shown }: Step,
  status: number,
  output: string,
): void {
  const isError = shown !== null && /^livesnap: /m.test(shown);
  assert.equal(status !== 0, isError, `${place}: ${commands}\nended with status ${status}:\n${output}`);
  if (shown === null) return;
  // Notes are about this host.
  const printed = `${output
    .split('\n')
    .filter((line) => !line.startsWith('note: ') || shown.includes('note: '))
    .join('\n')
    .trimEnd()}\n`;
  assert.match(
    printed,
    patternOf(shown),
    `${place}: ${commands}\nprints\n${printed}\nand the page shows\n${shown}`,
  );
}
