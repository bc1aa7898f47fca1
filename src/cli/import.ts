import { announce, printCopies } from './copy-output.js';
import { requireUtf8 } from './exact-arguments.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'import',
  operands: ['<dir>'],
  options: {},
  notes: [
    'The directory may come from an untrusted source: malformed or damaged contents',
    'are refused. That does not prove who made the snapshot.',
  ].join('\n'),
  async run({ operands, output, storeDir }) {
    const [from] = operands as [string];
    const { importSnapshots } = await import('../store/remote/export.js');
    const results = await output.withProgress('importing', (progress) =>
      importSnapshots({
        storeDir,
        from: requireUtf8(from),
        onPlan: (plan) => announce(output, plan),
        progress,
      }),
    );
    printCopies(output, results);
    return 0;
  },
});
