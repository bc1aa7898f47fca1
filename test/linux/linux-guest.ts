/** The Linux guest of the tests: where it is, and its console. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** The directory that scripts/linux-guest filled: LIVESNAP_LINUX_GUEST, or the one in the user's cache. */
export const GUEST =
  process.env.LIVESNAP_LINUX_GUEST ??
  join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'livesnap/linux-guest');

/** The prompt of the guest's shell in its first directory. The disk has an /etc/passwd, which makes that `~`. */
export const PROMPT = /(?:~|\/root) # /;

/** Call in a `before` hook. Without /dev/kvm the tests are skipped; without a file of the guest they fail. */
export function requireLinuxGuest(context: Mocha.Context, files: readonly string[]): void {
  if (!existsSync('/dev/kvm')) {
    console.warn('      SKIPPED: the Linux guest needs /dev/kvm');
    context.skip();
  }
  for (const file of files)
    assert.ok(existsSync(join(GUEST, file)), `${GUEST}/${file} is missing: run scripts/linux-guest ${GUEST}`);
}

/** The console of a machine on pipes, as an expect script has it. `child` is a running `livesnap console`. */
export class LinuxConsole {
  readonly #child: ChildProcess;
  #text = '';
  #ended = false;
  #wake: () => void = () => {};

  constructor(child: ChildProcess) {
    this.#child = child;
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
