import { ExitStatus } from '../errors.js';
import { formatCount, nounFor, shortId } from '../format.js';
import { StoreVerbs } from '../host/store-verbs.js';
import type { CheckOptions, Problem } from '../store/types.js';
import { joined, printable, styled, type Text, text } from './styled-text.js';
import { parsePart } from './values.js';
import { defineVerb, optional } from './verb.js';

export const verb = defineVerb({
  name: 'check',
  operands: [],
  options: {
    readData: optional('--read-data [n/m]', 'Also verify the data, or the fraction n/m of it', parsePart),
  },
  notes: [
    'Without --read-data, check verifies the structure of the store, not the data.',
    '--read-data=1/10 verifies a tenth of the data: the part that was verified',
    'longest ago. Ten runs verify all.',
    'Exit status 4: the store is damaged.',
  ].join('\n'),
  async run({ options, output, storeDir }) {
    const { readData = false } = options;
    const { ok, problems, isNoted } = await output.withProgress('checking', (onProgress) =>
      new StoreVerbs(storeDir).check({ readData, onProgress }),
    );
    if (!isNoted) output.say('The store cannot be written, so the next check will read the same part.');
    const found = () => joined(linesOf(problems));
    output.result({ ok, problems }, () => (ok ? noDamage(readData) : found()), found);
    if (!ok) output.remark('livesnap repair heals what it can, and lists what is lost.');
    return ok ? 0 : ExitStatus.damaged;
  },
});

/** The result of a check without a finding, with its extent. */
export function noDamage(readData: CheckOptions['readData']): string {
  if (readData === true) return 'No damage found. All data was verified.';
  if (readData === false)
    return 'No damage found in the structure. To verify the data as well, use --read-data.';
  return `No damage found in the structure or in the ${readData.part}/${readData.of} of the data that was verified.`;
}

/** Problems shown for one file. --json shows all of them. */
const MAX_PER_FILE = 10;

/** One line per problem. For a file with many, the first ones and the number of the others. */
export function linesOf(problems: readonly Problem[]): Text[] {
  const byFile = new Map<string, Problem[]>();
  for (const problem of problems) {
    const of = byFile.get(problem.file);
    if (of) of.push(problem);
    else byFile.set(problem.file, [problem]);
  }
  return [...byFile].flatMap(([file, all]) => {
    const shown = all.length > MAX_PER_FILE + 1 ? all.slice(0, MAX_PER_FILE) : all;
    const lines = shown.map((problem) => {
      const place = problem.offset === null ? file : `${file} at ${problem.offset}`;
      return lineOf(place, `${problem.message}${affecting([problem])}`);
    });
    const rest = all.slice(shown.length);
    if (rest.length > 0)
      lines.push(lineOf(file, `${formatCount(rest.length, 'more problem')}${affecting(rest)}`));
    return lines;
  });
}

const lineOf = (place: string, problem: string): Text =>
  text`${styled('bad', printable(place))}: ${printable(problem)}`;

/** `(disk1 of snapshots a, b; ram@0x0 of snapshot a)`. A snapshot of which no region is named has a damaged file. */
function affecting(problems: readonly Problem[]): string {
  const byRegion = new Map<string, Set<string>>();
  const add = (region: string, snapshot: string): void => {
    const of = byRegion.get(region);
    if (of) of.add(snapshot);
    else byRegion.set(region, new Set([snapshot]));
  };
  for (const { snapshots, regions } of problems) {
    for (const { snapshot, region } of regions) add(`${region} of `, snapshot);
    const named = new Set(regions.map(({ snapshot }) => snapshot));
    for (const snapshot of snapshots) if (!named.has(snapshot)) add('', snapshot);
  }
  const parts = [...byRegion].map(([region, snapshots]) => {
    const ids = [...snapshots].sort().map(shortId);
    return `${region}${nounFor(ids.length, 'snapshot')} ${ids.join(', ')}`;
  });
  return parts.length === 0 ? '' : ` (${parts.join('; ')})`;
}
