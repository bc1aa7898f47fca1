/**
 * Files that sign a browser in: each is a page that leads to the server with a code in the fragment of the address. The
 * arguments of programs are public, so `livesnap open` gives the browser the name of a file instead of a code.
 *
 * Invariants:
 * - A file is for this user alone, in the directory of the server's socket.
 * - It is deleted when its code was used, or has ended, or a server is started.
 */
import { randomBytes } from 'node:crypto';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const NAME = /^open-[0-9a-f]{32}\.html$/;

const escaped = (text: string): string => text.replace(/[&<>"']/g, (char) => `&#${char.codePointAt(0)};`);

export class SignInFiles {
  /** By code. */
  readonly #paths = new Map<string, string>();

  constructor(
    readonly directory: string,
    readonly lifetimeMs: number,
  ) {
    for (const name of readdirSync(directory))
      if (NAME.test(name)) rmSync(join(directory, name), { force: true });
  }

  /** Writes a file for a code, and returns its path. Errors: those of the system. */
  write(origin: string, code: string): string {
    const address = escaped(`${origin}/#code=${code}`);
    const path = join(this.directory, `open-${randomBytes(16).toString('hex')}.html`);
    const html = [
      '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>livesnap</title>',
      `<meta http-equiv="refresh" content="0;url=${address}">`,
      `<p>Sign-in for livesnap. <a href="${address}">Go on</a>`,
    ];
    writeFileSync(path, `${html.join('\n')}\n`, { mode: 0o600, flag: 'wx' });
    this.#paths.set(code, path);
    setTimeout(() => this.remove(code), this.lifetimeMs).unref();
    return path;
  }

  /** To be called when a code was used. */
  remove(code: string): void {
    const path = this.#paths.get(code);
    if (path === undefined) return;
    this.#paths.delete(code);
    rmSync(path, { force: true });
  }

  close(): void {
    for (const code of [...this.#paths.keys()]) this.remove(code);
  }
}
