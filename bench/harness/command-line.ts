/** The built command line, with directories of its own. */
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../src/native/project-root.js';

export const PROBE = join(projectRoot, 'guest/build/probe.elf');

export class CommandLine {
  readonly #env: NodeJS.ProcessEnv;

  constructor(dir: string) {
    mkdirSync(join(dir, 'run'), { mode: 0o700 });
    this.#env = {
      ...process.env,
      XDG_RUNTIME_DIR: join(dir, 'run'),
      XDG_CONFIG_HOME: join(dir, 'config'),
      LIVESNAP_STORE: join(dir, 'store'),
    };
  }

  /** Runs Node with arguments, and returns the milliseconds and the output. */
  node(...args: string[]): { ms: number; output: string } {
    const begun = performance.now();
    const ran = spawnSync(process.execPath, args, { env: this.#env, encoding: 'utf8' });
    const ms = performance.now() - begun;
    if (ran.status !== 0) throw new Error(`node ${args.join(' ')}: ${ran.stdout}${ran.stderr}`);
    return { ms, output: ran.stdout };
  }

  run(...args: string[]): { ms: number; output: string } {
    return this.node(join(projectRoot, 'dist/bin/livesnap.js'), ...args);
  }

  /** Runs a verb with `--json`, and returns the value. */
  json(...args: string[]): Record<string, unknown> {
    return JSON.parse(this.run(...args, '--json').output);
  }
}
