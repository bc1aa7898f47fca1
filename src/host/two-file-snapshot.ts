/**
 * The two files of a snapshot of the program that livesnap replaces, `cpu.snap` and `memory.snap`: one snapshot here,
 * found by a tag that is made of both paths. The command line and the server make the same tag.
 *
 * Invariants: a path is a name and is never opened, so two spellings of one path are two names.
 */
import { createHash } from 'node:crypto';
import { LivesnapError } from '../errors.js';

const IS_TAG = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/**
 * The name of the one snapshot that two paths stand for: a tag or an ID that both are, or a tag made of both, which
 * other paths do not have.
 */
export function snapshotNamed(cpuPath: string, memoryPath: string): string {
  if (cpuPath === memoryPath && IS_TAG.test(cpuPath)) return cpuPath;
  const words = cpuPath
    .split('/')
    .at(-1)!
    .replace(/\.[^.]*$/, '')
    .replace(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, 40);
  const digest = createHash('sha256').update(`${cpuPath}\0${memoryPath}`).digest('hex').slice(0, 12);
  return `${words || 'snapshot'}-${digest}`;
}

/** The error for these two paths, if the store lacks their snapshot: its tag alone would tell the user nothing. */
export function errorOfTwoFiles(error: unknown, cpuPath: string, memoryPath: string): unknown {
  const tag = snapshotNamed(cpuPath, memoryPath);
  if (!(error instanceof LivesnapError) || error.code !== 'NO_SUCH_SNAPSHOT' || tag === cpuPath) return error;
  return new LivesnapError('NO_SUCH_SNAPSHOT', `nothing was saved as ${cpuPath} and ${memoryPath}`, {
    hint: `These two files are one snapshot here. To save it: livesnap save MACHINE --tag ${tag}`,
    cause: error,
  });
}
