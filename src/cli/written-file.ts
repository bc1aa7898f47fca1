/** The output of verbs that write data of a snapshot to a file: `get` and `disk`. */
import { fstatSync, type Stats } from 'node:fs';
import { LivesnapError } from '../errors.js';
import { formatBytes } from '../format.js';
import { StoreVerbs } from '../host/store-verbs.js';
import type { Progress } from '../page-stream.js';
import { exactName } from './exact-arguments.js';
import type { Output } from './output.js';
import { isSharedTerminal } from './shared-terminal.js';

/** What FILE may be, for the help. */
export const FILE_NOTES = [
  'FILE is a path, a FIFO, a character device, an open descriptor (/dev/stdout,',
  '/dev/fd/N), or - for standard output. Block devices are refused.',
  'An existing regular file is replaced once the new one is complete. The new file',
  'gets the mode and owner of the old one.',
].join('\n');

/** The target's file status, and whether the target is the standard output under any name. */
async function statTarget(
  to: string | Buffer,
  storeDir: string,
): Promise<{ stats: Stats | null; isStdout: boolean }> {
  const stdout = fstatSync(1);
  if (to === '-') return { stats: stdout, isStdout: true };
  const { findTarget } = await import('../store/file/file-target.js');
  const target = findTarget(to, storeDir);
  const { stats } = target;
  const isOpenHere = target.kind === 'stream' && target.fd !== null;
  return { stats, isStdout: isOpenHere && stats?.dev === stdout.dev && stats.ino === stdout.ino };
}

/** Runs `write` with what `path` names, and reports the result. */
export async function writeFile(
  { output, storeDir }: { readonly output: Output; readonly storeDir: string },
  path: string,
  write: (
    store: StoreVerbs,
    to: string | Buffer | NodeJS.WriteStream,
    onProgress?: Progress,
  ) => Promise<{ bytes: number }>,
): Promise<number> {
  const to = exactName(path);
  const { stats, isStdout } = await statTarget(to, storeDir);
  if (isStdout && output.json)
    throw new LivesnapError('USAGE', 'the file and JSON cannot both go to standard output', {
      hint: 'Leave out --json, or specify a file.',
    });
  const work = (onProgress?: Progress) =>
    write(new StoreVerbs(storeDir), to === '-' ? process.stdout : to, onProgress);
  const { bytes } = isSharedTerminal(stats) ? await work() : await output.withProgress('reading', work);
  if (!isStdout) output.result({ bytes }, () => `Wrote ${formatBytes(bytes)} to ${path}`);
  return 0;
}
