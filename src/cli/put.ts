import { fstatSync, type Stats, statSync } from 'node:fs';
import { StoreVerbs } from '../host/store-verbs.js';
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
    const { tag: tags, name } = options;
    const put = (onProgress?: Progress) =>
      new StoreVerbs(storeDir).put(isStdin ? process.stdin : from, { tags, name, onProgress });
    const stats = isStdin ? fstatSync(0) : statusOf(from);
    const stored = isSharedTerminal(stats) ? await put() : await output.withProgress('storing', put);
    printSave(output, { ...stored, pauseMs: 0, pausePhases: null, storedWhilePausedBytes: 0 });
    return 0;
  },
});

/** Null: there is no file, or it cannot be examined. put tells why. */
function statusOf(file: string | Buffer): Stats | null {
  try {
    return statSync(file);
  } catch {
    return null;
  }
}
