import { basename } from 'node:path';
import { printSave } from './save.js';
import { readableFile } from './start.js';
import { withStore } from './store-access.js';
import { parseText } from './values.js';
import { defineVerb, valued } from './verb.js';

export const verb = defineVerb({
  name: 'put',
  summary: 'keep a file as a snapshot and print its id',
  operands: ['<file>'],
  options: { tag: valued('--tag <label>', 'a name for the snapshot', parseText) },
  async run({ operands, options, output, storeDir }) {
    const path = readableFile(operands[0]!, 'file');
    const begun = performance.now();
    const result = await output.withProgress('storing', (progress) =>
      withStore(storeDir, { write: true, create: true }, (store) =>
        store.put(path, { tag: options.tag ?? null, name: basename(path) }, progress),
      ),
    );
    printSave(output, { ...result, pauseMs: 0, saveMs: Math.round(performance.now() - begun) });
    return 0;
  },
});
