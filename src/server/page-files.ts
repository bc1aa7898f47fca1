/**
 * The files of the page (src/web, bundled into dist/web), read when the server starts.
 *
 * Invariant: only files that were there then are served, by the exact name. No request names a path of the disk.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LivesnapError } from '../errors.js';
import { projectRoot, REINSTALL } from '../native/project-root.js';

const TYPES: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  css: 'text/css; charset=utf-8',
  txt: 'text/plain; charset=utf-8',
};

export interface PageFile {
  readonly bytes: Buffer;
  readonly type: string;
  readonly etag: string;
}

/** By path, `/` and `/app/NAME`. Errors: SYSTEM (the installation is incomplete). */
export function readPageFiles(directory = join(projectRoot, 'dist/web')): ReadonlyMap<string, PageFile> {
  try {
    const names = readdirSync(join(directory, 'app'));
    return new Map([
      ['/', fileAt(join(directory, 'index.html'))],
      ...names.map((name) => [`/app/${name}`, fileAt(join(directory, 'app', name))] as const),
    ]);
  } catch (error) {
    throw new LivesnapError('SYSTEM', `the page of the server cannot be read: ${(error as Error).message}`, {
      hint: REINSTALL,
      cause: error,
    });
  }
}

function fileAt(path: string): PageFile {
  const bytes = readFileSync(path);
  const type = TYPES[path.slice(path.lastIndexOf('.') + 1)] ?? 'application/octet-stream';
  return { bytes, type, etag: `"${createHash('sha256').update(bytes).digest('hex').slice(0, 32)}"` };
}
