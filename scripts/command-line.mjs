// Runs the built command line with a temporary store and run directory, for the demonstrations and cycles.mjs. end()
// stops its machines and removes its files.
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const main = join(root, 'dist/bin/livesnap.js');

export class CommandLine {
  dir = mkdtempSync(join(tmpdir(), 'livesnap-'));
  store = join(this.dir, 'store');

  constructor() {
    mkdirSync(join(this.dir, 'run'), { mode: 0o700 });
    this.env = {
      ...process.env,
      XDG_RUNTIME_DIR: join(this.dir, 'run'),
      XDG_CONFIG_HOME: join(this.dir, 'config'),
      LIVESNAP_STORE: this.store,
    };
  }

  /** Runs a verb. Resolves to its stdout. Rejects with its output if it fails. */
  run(args, { input = '', inherit = false } = {}) {
    const child = spawn(process.execPath, [main, ...args], {
      env: this.env,
      stdio: ['pipe', inherit ? 'inherit' : 'pipe', inherit ? 'inherit' : 'pipe'],
    });
    child.stdin.on('error', () => {});
    child.stdin.end(input);
    let stdout = '';
    let stderr = '';
    child.stdout?.setEncoding('utf8').on('data', (part) => {
      stdout += part;
    });
    child.stderr?.setEncoding('utf8').on('data', (part) => {
      stderr += part;
    });
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (status) => {
        if (status === 0) resolve(stdout);
        else reject(new Error(`livesnap ${args.join(' ')} ended with ${status}\n${stdout}${stderr}`));
      });
    });
  }

  async json(...args) {
    return JSON.parse(await this.run([...args, '--json']));
  }

  /** Sends the guest a line and resolves to the line that answers it. */
  async ask(machine, line, answer) {
    const text = await this.run(['console', machine, '--until', answer, '--timeout', '120'], {
      input: `${line}\n`,
    });
    return text.trimEnd().split('\n').at(-1).trim();
  }

  /** Resolves to the guest's next line that matches. */
  async hear(machine, pattern) {
    const text = await this.run(['console', machine, '--until', pattern, '--timeout', '120']);
    return text.trimEnd().split('\n').at(-1).trim();
  }

  async end() {
    const machines = join(this.dir, 'run/livesnap');
    for (const name of safeList(machines)) await this.run(['stop', name]).catch(() => {});
    rmSync(this.dir, { recursive: true, force: true });
  }
}

function safeList(dir) {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}
