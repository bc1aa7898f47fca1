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
  options: {
    tag: valued('--tag <label>', 'a name for the snapshot', parseText),
    name: valued('--name <name>', "what show calls the file (default: the file's own name)", parseText),
  },
  notes: 'FILE - is the standard input.',
  async run({ operands, options, output, storeDir }) {
    const isStdin = operands[0] === '-';
    const path = isStdin ? '-' : readableFile(operands[0]!, 'file');
    const name = options.name ?? (isStdin ? null : basename(path));
    const begun = performance.now();
    await withStore(storeDir, { write: true, create: true }, async (store) => {
      const result = await output.withProgress('storing', (progress) =>
        store.put(isStdin ? process.stdin : path, { tag: options.tag ?? null, name }, progress),
      );
      printSave(output, {
        ...result,
        pauseMs: 0,
        storedWhilePausedBytes: 0,
        saveMs: Math.round(performance.now() - begun),
      });
      const untidied = await store.tidy();
      if (untidied) output.say(`note: the file is stored, but the store was not tidied: ${untidied.message}`);
    });
    return 0;
  },
});
