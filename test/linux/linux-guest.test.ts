/**
 * The demonstration of the original project as a test, with the built command line:
 * 1. Linux boots to its shell, and a shell loop draws a progress bar.
 * 2. The machine is saved half-way and stopped.
 * 3. In a new process the bar continues to 100%. The shell has its variables and its history.
 *
 * LIVESNAP_LINUX_GUEST is the directory that scripts/linux-guest filled.
 */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { World } from '../e2e/cli.js';

const guest =
  process.env.LIVESNAP_LINUX_GUEST ??
  join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'livesnap/linux-guest');

describe('a real Linux guest', () => {
  let world: World;

  before(function () {
    if (!existsSync('/dev/kvm')) {
      console.warn('      SKIPPED: the Linux guest needs /dev/kvm');
      this.skip();
    }
    for (const file of ['vmlinux', 'bzImage', 'initrd'])
      assert.ok(
        existsSync(join(guest, file)),
        `${guest}/${file} is missing: run scripts/linux-guest ${guest}`,
      );
  });

  beforeEach(() => {
    world = new World();
  });

  afterEach(async () => {
    for (const console of consoles.splice(0)) console.close();
    await world.end();
  });

  const start = (name: string, kernel: string, ...more: readonly string[]): Promise<unknown> =>
    world.json(
      ...['start', '--kernel', join(guest, kernel), '--initrd', join(guest, 'initrd'), '--memory', '128M'],
      ...['--detach', '--name', name, ...more],
    );

  /** A `livesnap console` on pipes, as an expect script has it. */
  class Console {
    readonly #child: ChildProcess;
    #text = '';
    #ended = false;
    #wake: () => void = () => {};

    constructor(name: string) {
      this.#child = world.spawn('console', name);
      this.#child.stdin!.on('error', () => {});
      this.#child.stderr!.resume();
      this.#child.stdout!.setEncoding('latin1').on('data', (text: string) => {
        this.#text += text;
        this.#wake();
      });
      this.#child.on('close', () => {
        this.#ended = true;
        this.#wake();
      });
    }

    send(text: string): void {
      this.#child.stdin!.write(text);
    }

    /** Waits for a match in the output since the last match. Returns it with the text up to its end. */
    async until(expected: RegExp): Promise<{ match: RegExpExecArray; text: string }> {
      for (;;) {
        const match = expected.exec(this.#text);
        if (match !== null) {
          const text = this.#text.slice(0, match.index + match[0].length);
          this.#text = this.#text.slice(text.length);
          return { match, text };
        }
        assert.ok(!this.#ended, `the console ended before ${expected}; unmatched output:\n${this.#text}`);
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }

    /** Types a command at the prompt. Returns the match in its output (default: the first line end). */
    async command(line: string, expected = /\n/): Promise<RegExpExecArray> {
      this.send(`${line}\n`);
      const { match } = await this.until(expected);
      await this.until(PROMPT);
      return match;
    }

    /** Starts a long command and interrupts it with Ctrl-C, when the line editor no longer has the terminal. */
    async interrupted(): Promise<void> {
      this.send('(echo begun; sleep 100000)\n');
      await this.until(/begun\r*\n/);
      this.send('\x03');
      await this.until(PROMPT);
      await this.command('echo status $?', /status 130\r*\n/);
    }

    async ended(): Promise<void> {
      while (!this.#ended)
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
    }

    close(): void {
      this.#child.kill();
    }
  }

  const PROMPT = /\/root # /;
  const consoles: Console[] = [];

  function open(name: string): Console {
    const console = new Console(name);
    consoles.push(console);
    return console;
  }

  it('boots from a bzImage to a shell, and continues a progress bar in a new process', async () => {
    await start('first', 'bzImage', '--cpus', '2');
    const before = open('first');
    const { match } = await before.until(/LINUX READY (\S+)\r*\n/);
    assert.match(match[1]!, /-livesnap$/);
    await before.until(PROMPT);

    // An interactive shell on a controlling terminal: its output, both vCPUs, Ctrl-C.
    await before.command('echo answer $((6 * 7))', /answer 42\r*\n/);
    await before.command('echo cpus $(nproc)', /cpus 2\r*\n/);
    await before.interrupted();

    // A nonce that only the RAM of this machine has, and a bar of 20 steps.
    await before.command('read nonce < /proc/sys/kernel/random/uuid; done=0');
    const nonce = (await before.command('echo nonce is $nonce', /nonce is ([0-9a-f-]{36})/))[1];
    before.send(
      'while [ $done -lt 20 ]; do done=$((done + 1)); printf "\\r%d%% of the bar" $((done * 5)); sleep 0.2; done\n',
    );
    await before.until(/\r50% of the bar/);
    const saved = await world.json<{ id: string }>('save', 'first', '--tag', 'half', '--then', 'stop');
    await before.ended();
    assert.deepEqual(await world.json('ps'), []);

    // Twice from one snapshot, because the first restore must not change it.
    for (const name of ['second', 'third']) {
      await world.json('restore', saved.id, '--name', name, '--detach');
      const after = open(name);
      const { text } = await after.until(/100% of the bar/);
      assert.doesNotMatch(text, /\r(5|10|15|20|25|30|35|40|45)% of the bar/, 'the bar began again');
      await after.until(PROMPT);
      assert.equal((await after.command('echo nonce is $nonce', /nonce is ([0-9a-f-]{36})/))[1], nonce);
      await after.command('echo steps $done', /steps 20\r*\n/);
      await after.command("echo typed $(history | grep -c 'answer [$]')", /typed 1\r*\n/);
      await after.command('echo cpus $(nproc)', /cpus 2\r*\n/);
      await after.interrupted();
      await world.json('stop', name);
    }
  });

  it('boots from an ELF vmlinux, and ends when the guest does', async () => {
    await start('elf', 'vmlinux');
    const console = open('elf');
    await console.until(/LINUX READY/);
    await console.until(PROMPT);
    await console.command('echo cpus $(nproc)', /cpus 1\r*\n/);
    console.send('exit\n');
    await console.ended();
    assert.deepEqual(await world.json('ps'), []);
  });
});
