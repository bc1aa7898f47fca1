/** The output of copy, export and import. */

import { formatBytes, formatCount, shortId } from '../format.js';
import { PAGE_BYTES } from '../page-stream.js';
import type { CopyPlan, CopyResult } from '../store/copy/copy-result.js';
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
  const total = (key: 'sentBytes' | 'sentChunks' | 'presentChunks'): number =>
    results.reduce((sum, result) => sum + result[key], 0);
  const skippedTags = results.flatMap(({ id, skippedTags }) => skippedTags.map((tag) => ({ tag, id })));
  for (const { tag, id } of skippedTags)
    output.say(
      `The tag ${tag} of ${shortId(id)} was not copied: it names another snapshot there, or looks like an ID.`,
    );
  const value = {
    sentBytes: total('sentBytes'),
    sentChunks: total('sentChunks'),
    presentChunks: total('presentChunks'),
    skippedTags,
  };
  output.result(
    value,
    () =>
      `Sent ${formatCount(value.sentChunks, 'chunk')} (${formatBytes(value.sentBytes)}); ` +
      `${formatCount(value.presentChunks, 'chunk')} already there`,
  );
}
