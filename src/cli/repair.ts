import { ExitStatus } from '../errors.js';
import { formatTags, shortId } from '../format.js';
import { StoreVerbs } from '../host/store-verbs.js';
import { placesOf } from '../region-places.js';
import type { LostRange } from '../store/types.js';
import { joined, printable, styled, type Text, text } from './styled-text.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'repair',
  operands: [],
  options: {},
  notes: [
    'repair refuses to run while another process uses the store. It moves damaged',
    'files to quarantine/.',
    'Exit status 4: some data could not be recovered. The output lists the affected',
    'snapshots and ranges.',
  ].join('\n'),
  async run({ output, storeDir }) {
    const result = await output.withProgress('repairing', (onProgress) =>
      new StoreVerbs(storeDir).repair({ onProgress }),
    );
    const { actions, lost } = result;
    const losses = lost.map(sentenceOf);
    output.result(
      result,
      () => joined([...actions.map(printable), ...losses]),
      () => joined(losses),
    );
    if (lost.length > 0) for (const line of nextSteps(lost[0]!)) output.remark(line);
    return lost.length > 0 ? ExitStatus.damaged : 0;
  },
});

/** How to recover lost data. The example is complete except for the other store, so that a user can type it. */
function nextSteps({ snapshot }: LostRange): string[] {
  return [
    'To recover lost data, put the file again, or save a machine that still has it. Then run livesnap repair.',
    'If another store has the snapshot intact, copy it back. Example:',
    `livesnap rm ${shortId(snapshot)} && livesnap copy ${snapshot} --from STORE && livesnap repair`,
  ];
}

function sentenceOf({ snapshot, tags, region, fromBytes, toBytes }: LostRange): Text {
  const labels = formatTags(tags);
  const name = labels === null ? shortId(snapshot) : `${shortId(snapshot)} (${labels})`;
  return text`${styled('bad', 'Lost')} in snapshot ${printable(`${name}: ${placesOf(region, fromBytes, toBytes)}`)}`;
}
