import { resolve } from 'node:path';
import { LivesnapError } from '../errors.js';
import { formatBytes } from './output.js';
import { withStore } from './store-access.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'get',
  summary: 'write out a file that was put into the store',
  operands: ['<snapshot>', '<file>'],
  options: {},
  notes: [
    'FILE - is the standard output. A file that is there, also by way of links, is replaced when the new one is whole;',
    'a FIFO or a character device is written to; a block device is refused.',
  ].join('\n'),
  async run({ operands, output, storeDir }) {
    const [reference, path] = operands as [string, string];
    const isStdout = path === '-';
    if (isStdout && output.json)
      throw new LivesnapError('USAGE', 'the file and JSON cannot both go to the standard output', {
        hint: 'Leave out --json, or name a file.',
      });
    const to = isStdout ? process.stdout : resolve(path);
    const { bytes } = await output.withProgress('reading', (progress) =>
      withStore(storeDir, { write: false }, (store) => store.get(reference, to, progress)),
    );
    if (isStdout) return 0;
    output.result({ bytes }, () => `${formatBytes(bytes)} written to ${path}`);
    return 0;
  },
});
