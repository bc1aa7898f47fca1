/**
 * Builds small guests, the hostile ones in test/hostile/guests and others, with gcc, which the addon needs as well. A
 * host without gcc takes guests that were built elsewhere, from the directory LIVESNAP_TEST_GUESTS.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { projectRoot } from '../../src/native/addon.js';

const SOURCES = join(projectRoot, 'test/hostile/guests');

const BUILT = process.env.LIVESNAP_TEST_GUESTS;

/** Builds a kernel of one source, which may include what is common to the guests. Returns `path`. */
export function buildGuest(source: string, path: string): string {
  if (BUILT !== undefined) {
    copyFileSync(join(BUILT, `${basename(source, '.S')}.elf`), path);
    return path;
  }
  const flags = ['-nostdlib', '-static', '-Wl,--build-id=none', '-T', join(SOURCES, 'guests.lds')];
  execFileSync('gcc', ['-I', SOURCES, ...flags, '-o', path, source], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  return path;
}

/** Builds the guests of the sources in a directory into `into`, for a host without gcc. */
export function buildGuestsOf(directory: string, into: string): void {
  mkdirSync(into, { recursive: true });
  for (const file of readdirSync(directory))
    if (file.endsWith('.S')) buildGuest(join(directory, file), join(into, `${basename(file, '.S')}.elf`));
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
