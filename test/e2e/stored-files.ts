/** Files put into the store of a test world, and read back from any store. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { World } from './cli.js';

/** The result of copy, export and import. */
export interface Copied {
  readonly sentBytes: number;
  readonly sentChunks: number;
  readonly presentChunks: number;
}

export function writeFile(world: World, name: string, bytes: Buffer): string {
  const path = join(world.dir, name);
  writeFileSync(path, bytes);
  return path;
}

/** Puts a file with tag `name`; returns the ID of the snapshot. */
export const put = async (world: World, name: string, bytes: Buffer): Promise<string> =>
  (await world.json<{ id: string }>('put', writeFile(world, name, bytes), '--tag', name)).id;

/** The contents of a snapshot in `store`. */
export async function contents(world: World, store: string, ref: string): Promise<Buffer> {
  const path = join(world.dir, 'got');
  await world.json('get', ref, path, '--store', store);
  return readFileSync(path);
}
