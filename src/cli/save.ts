import { printSave } from './save-output.js';
import { parseText, parseWord } from './values.js';
import { defineVerb, valued } from './verb.js';

/** How long the process of a machine stopped by --then may take to end. */
const PROCESS_END_TIMEOUT_MS = 30_000;

export const verb = defineVerb({
  name: 'save',
  summary: 'Save a machine as a snapshot',
  operands: ['<machine>'],
  options: {
    tag: valued('--tag <tag>', 'Tag the snapshot, taking the tag from any other', parseText),
    then: valued(
      '--then <action>',
      'After the save: resume, pause or stop (default: leave it as it was)',
      parseWord('resume', 'pause', 'stop'),
    ),
  },
  notes: [
    'Prints the ID of the snapshot.',
    'If neither --store nor LIVESNAP_STORE is set, the snapshot goes to the',
    "machine's store: the one that start or restore used, never an exported",
    'directory.',
  ].join('\n'),
  async run({ operands, options, output, namedStoreDir }) {
    const [name] = operands as [string];
    const { findMachine } = await import('../server/client.js');
    const client = await findMachine(name);
    const ended = options.then === 'stop' ? await client.directory.watchEnd() : null;
    const request = {
      store: namedStoreDir,
      tag: options.tag ?? null,
      then: options.then ?? null,
    };
    const result = await output.withProgress(`saving ${name}`, (progress) => client.save(request, progress));
    await ended?.(PROCESS_END_TIMEOUT_MS);
    printSave(output, result);
    return 0;
  },
});
