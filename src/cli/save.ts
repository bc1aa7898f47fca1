import { onInterruption } from './interruption.js';
import { printSave } from './save-output.js';
import { parseText, parseWord } from './values.js';
import { defineVerb, repeated, valued } from './verb.js';

export const verb = defineVerb({
  name: 'save',
  operands: ['<machine>'],
  defaultStore: "the machine's store",
  options: {
    tag: repeated(
      '--tag <tag>',
      'Tag the snapshot; a tag in use moves to this snapshot; may be repeated',
      parseText,
    ),
    then: valued(
      '--then <action>',
      'After the save: resume, pause or stop (default: leave it as it was)',
      parseWord('resume', 'pause', 'stop'),
    ),
  },
  notes: [
    'Prints the ID of the snapshot. If the command is interrupted, the save is',
    'cancelled.',
    "A machine's store is the one that start or restore was given. For a machine",
    'restored from an exported directory, it is the store that restore would have',
    'read otherwise.',
  ].join('\n'),
  async run({ operands, options, output, namedStoreDir }) {
    const { findMachine } = await import('../host/find-machine.js');
    const machine = await findMachine(operands[0]!);
    onInterruption((signal) => {
      // The machine's process notices that the connection ends.
      output.say('The save is cancelled, unless it was already committed: see livesnap ls.');
      process.kill(process.pid, signal);
    });
    const result = await output.withProgress(`saving ${machine.name}`, (onProgress) =>
      machine.save({ store: namedStoreDir ?? undefined, tags: options.tag, then: options.then, onProgress }),
    );
    printSave(output, result);
    return 0;
  },
});
