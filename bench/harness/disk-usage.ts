/** Bytes on disk. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** The bytes of all files below a directory. */
export const bytesBelow = (dir: string): number =>
  readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((each) => each.isFile())
    .reduce((sum, each) => sum + statSync(join(each.parentPath, each.name)).size, 0);
