/** The output of save and put. */

import { formatBytes, formatCount, formatDuration, shortId } from '../format.js';
import { PAGE_BYTES } from '../page-stream.js';
import type { MachineSaveResult } from '../vmm/machine-types.js';
import { type Output, taggedSentence } from './output.js';

/** Prints the result of a save or put: the ID on stdout, the rest as messages. */
export function printSave(output: Output, result: MachineSaveResult): void {
  const { id, tags, movedTags, parent, pauseMs, pausePhases, storedWhilePausedBytes, saveMs } = result;
  const { pages, zeroPages, unchangedPages } = result;
  const { newChunks, reusedChunks, storedBytes } = result;
  output.result(
    {
      id,
      tags,
      movedTags,
      parent,
      pauseMs,
      pausePhases,
      storedWhilePausedBytes,
      saveMs,
      pages,
      zeroPages,
      unchangedPages,
      newChunks,
      reusedChunks,
      storedBytes,
    },
    () => id,
    () => id,
  );
  for (const { tag, from } of movedTags) output.remark(taggedSentence(id, tag, from));
  const paused = pauseMs > 0 ? ` (paused ${formatDuration(pauseMs)})` : '';
  output.remark(`Saved ${formatBytes(pages * PAGE_BYTES)} in ${formatDuration(saveMs)}${paused}`);
  if (storedWhilePausedBytes > 0)
    output.remark(
      `Stored ${formatBytes(storedWhilePausedBytes)} while paused: the guest writes memory faster than it is stored`,
    );
  output.remark(
    `Pages: ${formatCount(newChunks)} new, ${formatCount(reusedChunks)} deduplicated, ` +
      `${formatCount(unchangedPages)} unchanged, ${formatCount(zeroPages)} zero`,
  );
  const since = parent === null ? '' : `, on top of ${shortId(parent)}`;
  output.remark(`Stored: ${formatBytes(storedBytes)}${since}`);
}
