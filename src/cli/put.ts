import { fstatSync } from 'node:fs';
import { withStore } from '../host/open-store.js';
import type { Progress } from '../page-stream.js';
import { exactName } from './exact-arguments.js';
import { printSave } from './save-output.js';
import { isSharedTerminal } from './shared-terminal.js';
import { parseText } from './values.js';
import { defineVerb, repeated, valued } from './verb.js';

export const verb = defineVerb({
  name: 'put',
  operands: ['<file>'],
  options: {
    tag: repeated(
      '--tag <tag>',
      'Tag the snapshot; a tag in use moves to this snapshot; may be repeated',
      parseText,
    ),
    name: valued(
      '--name <name>',
      'Name for ls and show (default: the name of FILE; none for a stream)',
      parseText,
    ),
  },
  notes: [
    'Prints the ID of the snapshot.',
    'FILE is a regular file, a FIFO, a device, or - for standard input. FIFOs,',
    'devices and standard input are read to their end.',
    'The holes of a sparse file are not read.',
  ].join('\n'),
  async run({ operands, options, output, storeDir }) {
    const from = exactName(operands[0]!);
    const isStdin = from === '-';
    // Checked first: a missing file must not create a store.
    const { requireSource } = await import('../store/file/file-source.js');
    const stats = isStdin ? fstatSync(0) : requireSource(from).stats;
    const startedMs = performance.now();
    await withStore(storeDir, { write: true, create: true }, async (store) => {
      const work = (progress: Progress) =>
        store.put(
          isStdin ? process.stdin : from,
          { tags: options.tag, name: options.name ?? null },
          progress,
        );
      const result = isSharedTerminal(stats)
        ? await work(() => {})
        : await output.withProgress('storing', work);
      printSave(output, {
        ...result,
        pauseMs: 0,
        pausePhases: null,
        storedWhilePausedBytes: 0,
        saveMs: Math.round(performance.now() - startedMs),
      });
      const failure = await store.tidy();
      if (failure)
        output.say(`note: the file is stored, but cleaning up the store failed: ${failure.message}`);
    });
    return 0;
  },
});
