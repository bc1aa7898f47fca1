/** The output of copy, export and import. */

import type { ExitStatus } from '../errors.js';
import { formatBytes, formatCount, shortId } from '../format.js';
import { PAGE_BYTES } from '../page-stream.js';
import type { CopyPlan, CopyResult } from '../store/copy/copy-result.js';
import type { CopyAllResult } from '../store/remote/copy-all.js';
import type { Output } from './output.js';

/** One line per snapshot, before its pages are sent. */
export function announce(output: Output, { id, alreadyThere, sendChunks, presentChunks }: CopyPlan): void {
  const all = formatCount(sendChunks + presentChunks, 'chunk');
  output.remark(
    alreadyThere
      ? `${shortId(id)} is already there`
      : `${shortId(id)}: ${formatCount(sendChunks)} of ${all} to send, ` +
          `${formatBytes(sendChunks * PAGE_BYTES)} before compression`,
  );
}

/** The totals of one or more copies. */
export function printCopies(output: Output, results: readonly CopyResult[]): void {
  const totals = totalsOf(output, results);
  output.result(totals, () => sentenceOf(totals));
}

/** What became of all snapshots of a store. Returns the exit status: that of the first error. */
export function printAll(
  output: Output,
  { results, alreadyThere, failed, notTried }: CopyAllResult,
): 0 | ExitStatus {
  const totals = totalsOf(output, results);
  const there = new Set(alreadyThere);
  const copied = results.flatMap(({ id }) => (there.has(id) ? [] : [id]));
  for (const { id, error } of failed) {
    output.remark(`${shortId(id)} was not copied: ${error.message}`);
    if (error.hint !== undefined) output.remark(error.hint);
  }
  if (notTried.length > 0)
    output.remark(
      `${formatCount(notTried.length, 'more snapshot')} ${notTried.length === 1 ? 'was' : 'were'} not tried. ` +
        'Run the command again: what was copied is skipped.',
    );
  output.result(
    {
      ...totals,
      copied,
      alreadyThere,
      failed: failed.map(({ id, error }) => ({ id, error: error.toJSON() })),
      notTried,
    },
    () =>
      [
        `Copied ${formatCount(copied.length, 'snapshot')}; ${formatCount(alreadyThere.length)} already there` +
          (failed.length > 0 ? `; ${formatCount(failed.length)} failed` : ''),
        sentenceOf(totals),
      ].join('\n'),
    () => copied.join('\n'),
  );
  return failed[0]?.error.exitStatus ?? 0;
}

interface Totals {
  readonly sentBytes: number;
  readonly sentChunks: number;
  readonly presentChunks: number;
  readonly skippedTags: readonly { readonly tag: string; readonly id: string }[];
}

/** Adds up results, and names the tags that were not copied. */
function totalsOf(output: Output, results: readonly CopyResult[]): Totals {
  const total = (key: 'sentBytes' | 'sentChunks' | 'presentChunks'): number =>
    results.reduce((sum, result) => sum + result[key], 0);
  const skippedTags = results.flatMap(({ id, skippedTags }) => skippedTags.map((tag) => ({ tag, id })));
  for (const { tag, id } of skippedTags)
    output.say(
      `The tag ${tag} of ${shortId(id)} was not copied: it names another snapshot there, or looks like an ID.`,
    );
  return {
    sentBytes: total('sentBytes'),
    sentChunks: total('sentChunks'),
    presentChunks: total('presentChunks'),
    skippedTags,
  };
}

const sentenceOf = ({ sentBytes, sentChunks, presentChunks }: Totals): string =>
  `Sent ${formatCount(sentChunks, 'chunk')} (${formatBytes(sentBytes)}); ` +
  `${formatCount(presentChunks, 'chunk')} already there`;
