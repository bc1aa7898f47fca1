import { fstatSync } from 'node:fs';
import type { Progress } from '../store/types.js';
import { exactName } from './exact-arguments.js';
import { printSave } from './save.js';
import { isSharedTerminal } from './shared-terminal.js';
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
  notes:
    'FILE - is the standard input. A FIFO or a device is read to its end. The holes of a sparse file are not read.',
  async run({ operands, options, output, storeDir }) {
    const from = exactName(operands[0]!);
    const isStdin = from === '-';
    // Before a store is made for what is not there.
    const { requireSource } = await import('../store/file/file-source.js');
    const stats = isStdin ? fstatSync(0) : requireSource(from).stats;
    const begun = performance.now();
    await withStore(storeDir, { write: true, create: true }, async (store) => {
      const work = (progress: Progress) =>
        store.put(
          isStdin ? process.stdin : from,
          { tag: options.tag ?? null, name: options.name ?? null },
          progress,
        );
      const result = isSharedTerminal(stats)
        ? await work(() => {})
        : await output.withProgress('storing', work);
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
