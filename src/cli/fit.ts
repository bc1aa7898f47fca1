import { ExitStatus, LivesnapError } from '../errors.js';
import { shortId } from '../format.js';
import { locateSnapshot } from '../host/locate-snapshot.js';
import { StoreVerbs } from '../host/store-verbs.js';
import { anything, object, parse, satisfying } from '../schema.js';
import { readSmallFile } from '../small-file.js';
import type { FitFinding } from '../vmm/fit/compare.js';
import type { HostProfile } from '../vmm/fit/host-profile.js';
import { joined, printable, styled, type Text, text } from './styled-text.js';
import { parseText } from './values.js';
import { defineVerb, valued } from './verb.js';

/** Far more than the output of `doctor --json` on any host. */
const MAX_FILE_BYTES = 1 << 20;

const notAHost = (path: string, problem: string, cause?: unknown): LivesnapError =>
  new LivesnapError('USAGE', `${path} does not describe a host: ${problem}`, {
    hint: 'Make the file on that host: livesnap doctor --json >FILE',
    cause,
  });

const isGiven = (value: unknown): boolean => value !== undefined;
const DOCTOR_RESULT = object({ host: satisfying(anything, isGiven, 'is missing') }, { others: 'ignore' });

/** The host in a file made by `doctor --json`. Errors: those of {@link readSmallFile}; USAGE, NEWER_FORMAT. */
async function hostInFile(path: string): Promise<HostProfile> {
  const text = readSmallFile(path, MAX_FILE_BYTES, (problem) => notAHost(path, problem));
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw notAHost(path, 'it is not JSON', error);
  }
  const { host } = parse(DOCTOR_RESULT, value, ({ message }) => notAHost(path, message));
  if (host === null) throw notAHost(path, 'doctor found no KVM there');
  const { decodeProfile } = await import('../vmm/fit/host-profile.js');
  return decodeProfile(host, path);
}

const MARKS: Record<FitFinding['level'], Text> = {
  refuse: styled('bad', 'WRONG'),
  warn: styled('caution', 'note '),
};

function describe(findings: readonly FitFinding[]): Text[] {
  const width = Math.max(0, ...findings.map(({ thing }) => thing.length));
  return findings.flatMap(({ level, thing, need, have, help }) => [
    text`${MARKS[level]}  ${printable(thing.padEnd(width))}  needs ${printable(need)}`,
    `${' '.repeat(width + 9)}host: ${printable(have)}`,
    `${' '.repeat(width + 9)}→ ${printable(help)}`,
  ]);
}

export const verb = defineVerb({
  name: 'fit',
  operands: ['<snapshot>'],
  options: {
    against: valued(
      '--against <file>',
      'Host described by a file from doctor --json (default: this host)',
      parseText,
    ),
  },
  notes: [
    'SNAPSHOT is a tag, an ID, a unique prefix of an ID, or an exported directory.',
    'Exit status 5: the snapshot cannot be restored on that host.',
    'To describe another host, run there: livesnap doctor --json >FILE',
  ].join('\n'),
  async run({ operands, options, output, storeDir }) {
    const reference = operands[0]!;
    const { against } = options;
    const host = against === undefined ? undefined : await hostInFile(against);
    const { dir, ref } = await locateSnapshot(storeDir, reference);
    const { id, findings } = await new StoreVerbs(dir).fit(ref, { host });
    const fits = findings.every(({ level }) => level !== 'refuse');
    const place = against === undefined ? 'this host' : `the host in ${against}`;
    output.result({ snapshot: id, fits, findings }, () =>
      joined([
        text`${shortId(id)} ${fits ? styled('good', 'fits') : styled('bad', 'does not fit')} ${place}`,
        ...describe(findings),
      ]),
    );
    return fits ? 0 : ExitStatus.unsupportedHost;
  },
});
