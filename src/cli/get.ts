import { resolve } from 'node:path';
import { formatBytes } from './output.js';
import { withStore } from './store-access.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'get',
  summary: 'write out a file that was put into the store',
  operands: ['<snapshot>', '<file>'],
  options: {},
  async run({ operands, output, storeDir }) {
    const [reference, path] = operands as [string, string];
    const { bytes } = await output.withProgress('reading', (progress) =>
      withStore(storeDir, { write: false }, (store) => store.get(reference, resolve(path), progress)),
    );
    output.result({ bytes }, () => `${formatBytes(bytes)} written to ${path}`);
    return 0;
  },
});
