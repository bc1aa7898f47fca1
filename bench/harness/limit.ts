/** The bare pipeline (bench/limit/pipeline.cc), built once into dist/ and run on images. */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { projectRoot } from '../../src/native/project-root.js';

export interface Limit {
  readonly seconds: readonly number[];
  readonly bytes: number;
  /** The compressed frames of `bytes`, without digests and fingerprints. */
  readonly frameBytes: number;
}

let isBuilt: boolean | null = null;

/**
 * `level`: of LZ4-HC; 0: LZ4.
 * @returns the seconds of each round and the bytes of the file; null: it cannot be built here
 */
export function bareLimit(images: readonly string[], dir: string, rounds: number, level = 0): Limit | null {
  const program = join(projectRoot, 'dist/bare-pipeline');
  if (isBuilt === null) {
    const built = spawnSync(join(projectRoot, 'bench/limit/build'), [program], { encoding: 'utf8' });
    isBuilt = built.status === 0;
    if (!isBuilt)
      process.stderr.write(`bench: the bare pipeline is not built (it needs a compiler)\n${built.stderr}`);
  }
  if (!isBuilt) return null;
  const output = join(dir, 'bare');
  const threads = String(Math.min(2, cpus().length));
  const options = ['--threads', threads, '--rounds', String(rounds), '--level', String(level)];
  const ran = spawnSync(program, [...options, output, ...images], { encoding: 'utf8' });
  rmSync(output, { force: true });
  if (ran.status !== 0) throw new Error(`the bare pipeline failed: ${ran.stderr}`);
  return JSON.parse(ran.stdout) as Limit;
}
