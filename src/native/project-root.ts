/** The directory in which livesnap is installed. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LivesnapError } from '../errors.js';

/** Searches upwards from src/native/ or dist/src/native/. */
function findRoot(): string {
  let dir = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(dir, 'package.json'))) {
    const up = dirname(dir);
    if (up === dir)
      throw new LivesnapError(
        'SYSTEM',
        'the installation of livesnap is incomplete: package.json is missing',
      );
    dir = up;
  }
  return dir;
}

export const projectRoot = findRoot();
