import { StoreVerbs } from '../host/store-verbs.js';
import type { CopyPlan } from '../store/copy/copy-result.js';
import { announce, printCopies } from './copy-output.js';
import { requireUtf8 } from './exact-arguments.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'export',
  operands: ['<snapshot>', '<dir>'],
  options: {},
  notes: [
    'DIR becomes a store with only this snapshot. It can be moved by any means.',
    'To use it: livesnap import DIR, or livesnap restore DIR.',
    'If an export is interrupted, run the same command again: it resumes.',
  ].join('\n'),
  async run({ operands, output, storeDir }) {
    const [ref, to] = operands as [string, string];
    const onPlan = (plan: CopyPlan): void => announce(output, plan);
    const result = await output.withProgress('exporting', (onProgress) =>
      new StoreVerbs(storeDir).export(ref, requireUtf8(to), { onPlan, onProgress }),
    );
    printCopies(output, [result]);
    return 0;
  },
});
