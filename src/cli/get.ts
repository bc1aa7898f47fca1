import { fstatSync, type Stats } from 'node:fs';
import { LivesnapError } from '../errors.js';
import type { Progress } from '../store/types.js';
import { exactName } from './exact-arguments.js';
import { formatBytes } from './output.js';
import { isSharedTerminal } from './shared-terminal.js';
import { withStore } from './store-access.js';
import { defineVerb } from './verb.js';

/** What is written to, and whether it is the standard output by this or another name. */
async function lookAt(
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
  summary: 'write out a file that was put into the store',
  operands: ['<snapshot>', '<file>'],
  options: {},
  notes: [
    'FILE - is the standard output. An existing file is replaced when the new one is whole; its mode and owner stay.',
    'A FIFO, a character device or an open descriptor (/dev/stdout, /dev/fd/N) is written to. A block device is refused.',
  ].join('\n'),
  async run({ operands, output, storeDir }) {
    const [reference, path] = operands as [string, string];
    const to = exactName(path);
    // Before the store is opened: later a descriptor that the caller does not have may be one of the store's.
    const { stats, isStdout } = await lookAt(to, storeDir);
    if (isStdout && output.json)
      throw new LivesnapError('USAGE', 'the file and JSON cannot both go to the standard output', {
        hint: 'Leave out --json, or name a file.',
      });
    const work = (progress: Progress) =>
      withStore(storeDir, { write: false }, (store) =>
        store.get(reference, to === '-' ? process.stdout : to, progress),
      );
    const { bytes } = isSharedTerminal(stats)
      ? await work(() => {})
      : await output.withProgress('reading', work);
    if (!isStdout) output.result({ bytes }, () => `${formatBytes(bytes)} written to ${path}`);
    return 0;
  },
});
