import { StoreVerbs } from '../host/store-verbs.js';
import type { CopyPlan } from '../store/copy/copy-result.js';
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
    const onPlan = (plan: CopyPlan): void => announce(output, plan);
    const results = await output.withProgress('importing', (onProgress) =>
      new StoreVerbs(storeDir).import(requireUtf8(from), { onPlan, onProgress }),
    );
    printCopies(output, results);
    return 0;
  },
});
