/** The directory in which livesnap is installed. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LivesnapError } from '../errors.js';

/** Searches upwards from dist/src/native/ or dist/bin/, which has a package.json of its own. */
function findRoot(): string {
  let dir = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(dir, 'migrations'))) {
    const up = dirname(dir);
    if (up === dir)
      throw new LivesnapError(
        'SYSTEM',
        'the installation of livesnap is incomplete: the directory migrations is missing',
        { hint: 'Install livesnap again.' },
      );
    dir = up;
  }
  return dir;
}

export const projectRoot = findRoot();

/** The kernel that livesnap brings: a small guest for tries and tests. */
export const bundledGuest = join(projectRoot, 'guest/build/probe.bzImage');

/** False in an installed npm package, which never has this file. */
export const isCheckout = existsSync(join(projectRoot, 'package-lock.json'));

/** What to do when a package is missing or was installed for another system. */
export const REINSTALL = isCheckout ? `Run npm ci in ${projectRoot}.` : 'Install livesnap again.';

/** The version of livesnap. */
export const installedVersion = (): string =>
  JSON.parse(readFileSync(join(projectRoot, 'package.json'), 'utf8')).version;
