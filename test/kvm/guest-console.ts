/** The console of a probe guest: waits for lines, sends commands, and checks that no TICK is missing. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Machine } from '../../src/vmm/machine.js';

export class GuestConsole {
  readonly #machine: Machine;
  #unread = '';
  nonce: string | null = null;
  lastTick: number | null = null;

  /** `from`: the console of the machine whose snapshot this one was restored from, and which did not run on after it. */
  constructor(machine: Machine, from?: GuestConsole) {
    this.#machine = machine;
    this.nonce = from?.nonce ?? null;
    this.lastTick = from?.lastTick ?? null;
    if (from) this.#unread = from.#unread;
    machine.on('console', (bytes) => {
      this.#unread += Buffer.from(bytes).toString('latin1');
    });
  }

  /** Forgets the last tick, for a machine that ran on after it was saved. The nonce stays. */
  loseTrack(): this {
    this.#unread = '';
    this.lastTick = null;
    return this;
  }

  /** The next line that matches. Lines before it are skipped, but every tick is checked. */
  async line(pattern: RegExp): Promise<string> {
    for (;;) {
      const end = this.#unread.indexOf('\n');
      if (end < 0) {
        assert.notEqual(this.#machine.state, 'stopped', `the machine ended while waiting for ${pattern}`);
        await once(this.#machine, 'console');
        continue;
      }
      const line = this.#unread.slice(0, end).replace(/\r$/, '');
      this.#unread = this.#unread.slice(end + 1);
      assert.doesNotMatch(line, /FAULT|ERR/, line);
      const tick = /TICK (\d+) nonce=([0-9a-f]{16})$/.exec(line);
      if (tick) this.#checkTick(Number(tick[1]), tick[2]!);
      if (pattern.test(line)) return line;
    }
  }

  async command(line: string, answer: RegExp): Promise<string> {
    this.#machine.writeConsole(Buffer.from(`${line}\n`));
    return this.line(answer);
  }

  async counters(): Promise<number[]> {
    return (await this.command('cpus', /^CPUS /)).slice('CPUS '.length).split(',').map(Number);
  }

  #checkTick(tick: number, nonce: string): void {
    this.nonce ??= nonce;
    assert.equal(nonce, this.nonce, 'the nonce is that of another machine');
    if (this.lastTick !== null) assert.equal(tick, this.lastTick + 1, 'no tick is missing or repeated');
    this.lastTick = tick;
  }
}
