/** Builds small guests, the hostile ones in test/hostile/guests and others, with gcc, which the addon needs as well. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { projectRoot } from '../../src/native/addon.js';

const SOURCES = join(projectRoot, 'test/hostile/guests');

/** Builds a kernel of one source, which may include what is common to the guests. Returns `path`. */
export function buildGuest(source: string, path: string): string {
  const flags = ['-nostdlib', '-static', '-Wl,--build-id=none', '-T', join(SOURCES, 'guests.lds')];
  execFileSync('gcc', ['-I', SOURCES, ...flags, '-o', path, source], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  return path;
}

export class HostileGuests {
  readonly #dir = mkdtempSync(join(tmpdir(), 'livesnap-hostile-'));

  constructor() {
    for (const name of HostileGuests.names()) buildGuest(join(SOURCES, `${name}.S`), this.kernel(name));
  }

  static names(): string[] {
    return readdirSync(SOURCES)
      .filter((file) => file.endsWith('.S'))
      .map((file) => basename(file, '.S'))
      .sort();
  }

  kernel(name: string): string {
    return join(this.#dir, `${name}.elf`);
  }

  remove(): void {
    rmSync(this.#dir, { recursive: true });
  }
}
