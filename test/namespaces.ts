/** Network namespaces that tests make for themselves, with programs of the host inside. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createInterface } from 'node:readline';

const ip = (...args: string[]): void => {
  const { status, stderr, error } = spawnSync('ip', args, { encoding: 'utf8' });
  assert.equal(status, 0, `ip ${args.join(' ')}: ${error?.message ?? stderr}`);
};

/** Skips with the reason where there cannot be any. Call in a `before` hook. */
export function requireNamespaces(context: Mocha.Context): void {
  const why =
    process.getuid!() !== 0
      ? 'network namespaces need root'
      : spawnSync('ip', ['-V']).status !== 0
        ? 'ip is missing: install iproute2'
        : null;
  if (why === null) return;
  console.warn(`      SKIPPED: ${why}`);
  context.skip();
}

let made = 0;

export class Namespace {
  readonly name = `livesnap-test-${process.pid}-${++made}`;
  readonly #children: ChildProcess[] = [];

  constructor() {
    ip('netns', 'add', this.name);
    ip('-n', this.name, 'link', 'set', 'lo', 'up');
  }

  /** Makes a tap that stays, with an address of the host. */
  addTap(tap: string, address: string): void {
    ip('-n', this.name, 'tuntap', 'add', tap, 'mode', 'tap');
    ip('-n', this.name, 'addr', 'add', address, 'dev', tap);
    ip('-n', this.name, 'link', 'set', tap, 'up');
  }

  /** Runs a program of the host in it, to its end. */
  run(...command: string[]): { status: number | null; stdout: string } {
    const { status, stdout } = spawnSync('ip', ['netns', 'exec', this.name, ...command], {
      encoding: 'utf8',
    });
    return { status, stdout };
  }

  /** Whether an address answers a ping within a few tries. */
  pings(address: string): boolean {
    return this.run('/bin/busybox', 'ping', '-c', '3', '-w', '30', address).status === 0;
  }

  /** Starts JavaScript in it. The function resolves to the next line that it prints; null at its end. */
  script(source: string, ...args: string[]): () => Promise<string | null> {
    const child = spawn(
      'ip',
      ['netns', 'exec', this.name, process.execPath, '--input-type=module', '-e', source, ...args],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    this.#children.push(child);
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    return async () => {
      const { value, done } = await lines.next();
      return done ? null : value;
    };
  }

  remove(): void {
    for (const child of this.#children) child.kill();
    ip('netns', 'del', this.name);
  }
}
