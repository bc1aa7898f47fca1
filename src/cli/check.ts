import { ExitStatus, LivesnapError } from '../errors.js';
import type { CheckOptions, Problem } from '../store/types.js';
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
      if (!(error instanceof LivesnapError && UNWRITABLE.has(error.code))) throw error;
      if (readData !== true) output.say('The store cannot be written: the next run will read the same part.');
      return check(false);
    });
    output.result({ ok, problems }, () =>
      ok ? noDamage(readData) : linesOf(problems).map(printable).join('\n'),
    );
    return ok ? 0 : ExitStatus.damaged;
  },
});

/** The store can be read, but not written. */
const UNWRITABLE = new Set<string>(['READ_ONLY', 'NO_PERMISSION']);

/** That nothing was found, where it was looked for. */
export function noDamage(readData: CheckOptions['readData']): string {
  if (readData === true) return 'No damage found. Every byte was read.';
  if (readData === false)
    return 'No damage found in the structure. Use --read-data to verify the contents, too.';
  return `No damage found in the structure, nor in the ${readData.part}/${readData.of} of the contents that was read.`;
}

/** What people see of a file that is damaged all over; with --json there is everything. */
const PER_FILE = 10;

/** A line a problem; of a file with many the first, and how many more there are. */
export function linesOf(problems: readonly Problem[]): string[] {
  const byFile = new Map<string, Problem[]>();
  for (const problem of problems) {
    const of = byFile.get(problem.file);
    if (of) of.push(problem);
    else byFile.set(problem.file, [problem]);
  }
  return [...byFile].flatMap(([file, all]) => {
    const shown = all.length > PER_FILE + 1 ? all.slice(0, PER_FILE) : all;
    const lines = shown.map(({ offset, snapshots, message }) => {
      const place = offset === null ? file : `${file} at ${offset}`;
      return `${place}: ${message}${touching(snapshots)}`;
    });
    const rest = all.slice(shown.length);
    if (rest.length > 0) {
      const snapshots = [...new Set(rest.flatMap((problem) => problem.snapshots))].sort();
      lines.push(`${file}: ${rest.length} more${touching(snapshots)}`);
    }
    return lines;
  });
}

const touching = (snapshots: readonly string[]): string =>
  snapshots.length === 0 ? '' : ` (snapshots ${snapshots.map(shortId).join(', ')})`;
