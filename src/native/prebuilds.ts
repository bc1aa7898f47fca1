/**
 * Finds compiled parts: first where a checkout builds them, then in `prebuilds/`, which the npm package carries. Those
 * binaries are for Linux on x86-64 with glibc. Elsewhere they do not exist for us.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from './project-root.js';

const PREBUILDS = join(projectRoot, 'prebuilds/linux-x64');

/** The addon's platform. */
export const isLinuxX64: boolean = process.platform === 'linux' && process.arch === 'x64';

/** True for a process whose dynamic loader is musl's, by its list of mappings (proc(5)). */
export const hasMusl = (maps: string): boolean => /\/ld-musl-[^/\s]*\.so/.test(maps);

let answer: boolean | null = null;

function isGlibcX64(): boolean {
  answer ??= isLinuxX64 && !hasMusl(readFileSync('/proc/self/maps', 'latin1'));
  return answer;
}

/** The path of a compiled part. Null: it is not built, and no binary for this platform came with the package. */
export function findBinary(built: string, prebuilt: string): string | null {
  const own = join(projectRoot, built);
  if (existsSync(own)) return own;
  const carried = join(PREBUILDS, prebuilt);
  return existsSync(carried) && isGlibcX64() ? carried : null;
}

/** True where the package's binaries exist but are for another C library. */
export const isForOtherLibc = (prebuilt: string): boolean =>
  isLinuxX64 && existsSync(join(PREBUILDS, prebuilt)) && !isGlibcX64();
