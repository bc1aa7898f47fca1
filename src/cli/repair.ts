import { ExitStatus } from '../errors.js';
import type { LostRange } from '../store/types.js';
import { printable, shortId } from './output.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'repair',
  summary: "rebuild the store's index from its files",
  operands: [],
  options: {},
  notes: 'Exit status 4 says that something is lost; what, is said by snapshot and address.',
  async run({ output, storeDir }) {
    const { Store } = await import('../store/store.js');
    const result = await output.withProgress('repairing', (progress) => Store.repair(storeDir, progress));
    const { actions, lost } = result;
    output.result(result, () => [...actions, ...lost.map(sentenceOf)].map(printable).join('\n'));
    return lost.length > 0 ? ExitStatus.damaged : 0;
  },
});

function sentenceOf({ snapshot, tag, region, fromBytes, toBytes }: LostRange): string {
  const name = tag === null ? shortId(snapshot) : `${shortId(snapshot)} (${tag})`;
  return `Snapshot ${name}: 0x${fromBytes.toString(16)} to 0x${toBytes.toString(16)} of ${region} are lost.`;
}
