import { defineVerb } from './verb.js';
import { FILE_NOTES, writeFile } from './written-file.js';

export const verb = defineVerb({
  name: 'get',
  operands: ['<snapshot>', '<file>'],
  options: {},
  notes: [
    FILE_NOTES,
    'get also writes the disk of a snapshot that stop made. For others: livesnap disk',
  ].join('\n'),
  run({ operands, output, storeDir }) {
    const [reference, path] = operands as [string, string];
    return writeFile({ output, storeDir }, path, (store, to, onProgress) =>
      store.writeFile(reference, to, { onProgress }),
    );
  },
});
