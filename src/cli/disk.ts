import { parseDisk } from './values.js';
import { defineVerb } from './verb.js';
import { FILE_NOTES, writeFile } from './written-file.js';

export const verb = defineVerb({
  name: 'disk',
  operands: ['<snapshot>', '<number-or-file>', '[file]'],
  usage: '[options] <snapshot> [n] <file>',
  options: {},
  notes: [
    'N is the number of the disk, such as 0 or disk0. If the snapshot has only one',
    'disk, N may be left out. FILE becomes a raw image. livesnap show lists disks.',
    FILE_NOTES,
  ].join('\n'),
  run({ operands, output, storeDir }) {
    const [reference, first, second] = operands as [string, string, string?];
    const number = second === undefined ? null : parseDisk(first);
    return writeFile({ output, storeDir }, second ?? first, (store, to, onProgress) =>
      store.writeDisk(reference, number, to, { onProgress }),
    );
  },
});
