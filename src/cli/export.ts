import { announce, printCopies } from './copy-output.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'export',
  summary: 'make one snapshot a directory of its own',
  operands: ['<snapshot>', '<dir>'],
  options: {},
  notes: 'The directory can be copied by any means, imported, and restored from: livesnap restore DIR.',
  async run({ operands, output, storeDir }) {
    const [ref, to] = operands as [string, string];
    const { exportSnapshot } = await import('../store/remote/export.js');
    const result = await output.withProgress('exporting', (progress) =>
      exportSnapshot({ storeDir, ref, to, onPlan: (plan) => announce(output, plan), progress }),
    );
    printCopies(output, [result]);
    return 0;
  },
});
