import { ExitStatus } from '../errors.js';
import { printable, shortId } from './output.js';
import { withStore } from './store-access.js';
import { defineVerb, flag } from './verb.js';

export const verb = defineVerb({
  name: 'check',
  summary: 'look for damage in the store',
  operands: [],
  options: { readData: flag('--read-data', 'read every byte and compare its checksum, too') },
  notes: 'Exit status 4 says that the store is damaged.',
  async run({ options, output, storeDir }) {
    const { readData } = options;
    const { ok, problems } = await output.withProgress('checking', (progress) =>
      withStore(storeDir, { write: false }, (store) => store.check({ readData }, progress)),
    );
    output.result({ ok, problems }, () =>
      ok
        ? 'no damage found'
        : problems
            .map(({ file, offset, snapshots, message }) => {
              const place = offset === null ? file : `${file} at ${offset}`;
              const touches =
                snapshots.length === 0 ? '' : ` (snapshots ${snapshots.map(shortId).join(', ')})`;
              return printable(`${place}: ${message}${touches}`);
            })
            .join('\n'),
    );
    return ok ? 0 : ExitStatus.damaged;
  },
});
