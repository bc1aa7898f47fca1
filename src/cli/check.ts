import { ExitStatus, LivesnapError } from '../errors.js';
import { printable, shortId } from './output.js';
import { withStore } from './store-access.js';
import { parsePart } from './values.js';
import { defineVerb, optional } from './verb.js';

export const verb = defineVerb({
  name: 'check',
  summary: 'look for damage in the store',
  operands: [],
  options: {
    readData: optional(
      '--read-data [n/m]',
      'read every byte and compare its checksum, too; or n of m parts of them, those not read for longest',
      parsePart,
    ),
  },
  notes: 'Exit status 4 says that the store is damaged.',
  async run({ options, output, storeDir }) {
    const { readData = false } = options;
    const check = (write: boolean) =>
      output.withProgress('checking', (progress) =>
        withStore(storeDir, { write }, (store) => store.check({ readData }, progress)),
      );
    // What was read is remembered where the store can be written.
    const { ok, problems } = await check(readData !== false).catch((error) => {
      if (!(error instanceof LivesnapError && error.code === 'READ_ONLY')) throw error;
      if (readData !== true) output.say('The store cannot be written: the next run will read the same part.');
      return check(false);
    });
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
