/** A machine whose guest reads and writes its disk by commands (guests/disk.S). */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { join } from 'node:path';
import { projectRoot } from '../../src/native/project-root.js';
import type { Machine } from '../../src/vmm/machine.js';
import { buildGuest } from '../hostile/guests.js';

/** Builds the guest's kernel. Returns `path`. */
export const buildDiskGuest = (path: string): string =>
  buildGuest(join(projectRoot, 'test/kvm/guests/disk.S'), path);

/** The console of the guest. */
export class DiskGuest {
  readonly machine: Machine;
  #unread = '';

  constructor(machine: Machine) {
    this.machine = machine;
    machine.on('console', (bytes) => {
      this.#unread += Buffer.from(bytes).toString('latin1');
    });
  }

  /** The guest has set its device up. */
  async boot(): Promise<this> {
    await this.machine.resume();
    this.send('g');
    assert.equal(await this.line(), '>');
    return this;
  }

  send(command: string): void {
    this.machine.writeConsole(Buffer.from(command, 'latin1'));
  }

  async line(): Promise<string> {
    for (;;) {
      const end = this.#unread.indexOf('\n');
      if (end >= 0) {
        const line = this.#unread.slice(0, end);
        this.#unread = this.#unread.slice(end + 1);
        return line;
      }
      assert.notEqual(this.machine.state, 'stopped', 'the machine ended');
      await once(this.machine, 'console');
    }
  }

  /** Sends a command, and returns the answer without its status, which must be 0. */
  async ask(command: string): Promise<string> {
    this.send(command);
    const line = await this.line();
    assert.equal(line[0], '0', `${command} failed: ${line}`);
    return line.slice(1);
  }
}
