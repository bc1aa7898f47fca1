/** Builds the hostile guests in test/hostile/guests with gcc, which the addon needs as well. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { projectRoot } from '../../src/native/addon.js';

const SOURCES = join(projectRoot, 'test/hostile/guests');

export class HostileGuests {
  readonly #dir = mkdtempSync(join(tmpdir(), 'livesnap-hostile-'));

  constructor() {
    for (const name of HostileGuests.names()) {
      const flags = ['-nostdlib', '-static', '-Wl,--build-id=none', '-T', join(SOURCES, 'guests.lds')];
      execFileSync('gcc', [...flags, '-o', this.kernel(name), join(SOURCES, `${name}.S`)], {
        stdio: ['ignore', 'ignore', 'pipe'],
      });
    }
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
