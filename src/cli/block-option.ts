/** The value of `--block`: a disk of a new machine. */
import { resolve } from 'node:path';
import { LivesnapError } from '../errors.js';
import type { DiskRequest } from '../vmm/disk/disk-config.js';
import { parseSnapshotRegion } from './values.js';

const EXAMPLES = 'Examples: --block path=disk.img, --block path=disk.img,cow, --block snapshot=debian.';

const usage = (message: string, hint = EXAMPLES): LivesnapError =>
  new LivesnapError('USAGE', message, { hint });

/** The parts between commas; `,,` is a comma within a part. An argument never contains NUL. */
const partsOf = (text: string): string[] =>
  text
    .replaceAll(',,', '\0')
    .split(',')
    .map((part) => part.replaceAll('\0', ','));

/**
 * `path=FILE` or `snapshot=SNAPSHOT[:REGION]`, then `ro`, `cow` and `on-error=pause|report` in any order. Errors: USAGE.
 */
export function parseBlock(text: string): DiskRequest {
  let source: DiskRequest['source'] | null = null;
  let mode: DiskRequest['mode'] | null = null;
  let onError: DiskRequest['onError'] | null = null;
  for (const part of partsOf(text)) {
    const [key, value] = splitAt(part, '=');
    if (key === 'path' || key === 'snapshot') {
      if (source !== null)
        throw usage(`${JSON.stringify(text)} names more than one disk`, 'Give --block once for each disk.');
      if (!value) throw usage(`${key}= has no value`);
      source =
        key === 'path'
          ? { kind: 'file', path: resolve(value) }
          : { kind: 'snapshot', ...parseSnapshotRegion(value) };
    } else if (part === 'ro' || part === 'cow') {
      if (mode !== null && mode !== part) throw usage('ro and cow exclude each other', 'Use one of them.');
      mode = part;
    } else if (key === 'on-error' && (value === 'pause' || value === 'report')) {
      onError = value;
    } else {
      throw usage(
        `unknown part ${JSON.stringify(part)}`,
        `${EXAMPLES} Other parts: ro, cow, on-error=pause, on-error=report. Write a comma in a path twice.`,
      );
    }
  }
  if (source === null) throw usage(`${JSON.stringify(text)} has neither path= nor snapshot=`);
  return { source, mode: mode ?? 'rw', onError: onError ?? 'pause' };
}

/** The text before and after the first separator; null: there is none. */
function splitAt(text: string, separator: string): [string, string | null] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, null] : [text.slice(0, at), text.slice(at + separator.length)];
}
