import { shortId } from '../format.js';
import { StoreVerbs } from '../host/store-verbs.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'untag',
  operands: ['<tag...>'],
  options: {},
  notes: 'The snapshots stay. To remove snapshots: livesnap rm.',
  async run({ operands, output, storeDir }) {
    const removed = await new StoreVerbs(storeDir).untag(operands);
    output.result({ removed }, () =>
      removed.map(({ tag, id }) => `Removed the tag ${tag} from ${shortId(id)}`).join('\n'),
    );
    return 0;
  },
});
