import { fstatSync, type Stats } from 'node:fs';
import { LivesnapError } from '../errors.js';
import type { Progress } from '../page-stream.js';
import { exactName } from './exact-arguments.js';
import { formatBytes } from './format.js';
import { isSharedTerminal } from './shared-terminal.js';
import { withStore } from './store-access.js';
import { defineVerb } from './verb.js';

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

export const verb = defineVerb({
  name: 'get',
  summary: 'Write a stored file to a path',
  operands: ['<snapshot>', '<file>'],
  options: {},
  notes: [
    'FILE is a path, a FIFO, a character device, an open descriptor (/dev/stdout,',
    '/dev/fd/N), or - for standard output. Block devices are refused.',
    'An existing regular file is replaced once the new one is complete. The new file',
    'gets the mode and owner of the old one.',
  ].join('\n'),
  async run({ operands, output, storeDir }) {
    const [reference, path] = operands as [string, string];
    const to = exactName(path);
    // Checked before the store is opened: later, the same descriptor number may belong to a file of the store.
    const { stats, isStdout } = await statTarget(to, storeDir);
    if (isStdout && output.json)
      throw new LivesnapError('USAGE', 'the file and JSON cannot both go to standard output', {
        hint: 'Leave out --json, or specify a file.',
      });
    const work = (progress: Progress) =>
      withStore(storeDir, { write: false }, (store) =>
        store.get(reference, to === '-' ? process.stdout : to, progress),
      );
    const { bytes } = isSharedTerminal(stats)
      ? await work(() => {})
      : await output.withProgress('reading', work);
    if (!isStdout) output.result({ bytes }, () => `Wrote ${formatBytes(bytes)} to ${path}`);
    return 0;
  },
});
