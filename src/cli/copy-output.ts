/** What copy, export and import print of a copy, before and after. */
import type { CopyPlan, CopyResult } from '../store/copy/copy-result.js';
import { formatBytes, type Output, shortId } from './output.js';

/** One line a snapshot, before its pages travel. */
export function announce(output: Output, { id, alreadyThere, sendChunks, presentChunks }: CopyPlan): void {
  const count = (n: number): string => n.toLocaleString('en');
  output.remark(
    alreadyThere
      ? `${shortId(id)} is there already`
      : `${shortId(id)}: ${count(sendChunks)} of ${count(sendChunks + presentChunks)} chunks to send, ` +
          `${formatBytes(sendChunks * 4096)} before compression`,
  );
}

/** The result of one or more. */
export function printCopies(output: Output, results: readonly CopyResult[]): void {
  const total = (key: 'sentBytes' | 'sentChunks' | 'presentChunks'): number =>
    results.reduce((sum, result) => sum + result[key], 0);
  for (const { id, tagTaken } of results)
    if (tagTaken)
      output.say(
        `The tag of ${shortId(id)} was left behind: it names another snapshot there, or looks like an id.`,
      );
  const value = {
    sentBytes: total('sentBytes'),
    sentChunks: total('sentChunks'),
    presentChunks: total('presentChunks'),
  };
  output.result(value, () => {
    const sent = `${value.sentChunks.toLocaleString('en')} chunks, ${formatBytes(value.sentBytes)}`;
    return `sent ${sent}; ${value.presentChunks.toLocaleString('en')} were there`;
  });
}
