import type { SaveResult } from '../store/types.js';
import { formatBytes, formatMs, type Output, shortId, taggedSentence } from './output.js';
import { parseText, parseWord } from './values.js';
import { defineVerb, valued } from './verb.js';

/** Prints what a save or put did: the id on stdout, the rest as a remark. */
export function printSave(
  output: Output,
  result: SaveResult & { pauseMs: number; storedWhilePausedBytes: number; saveMs: number },
): void {
  const { id, tag, parent, pauseMs, storedWhilePausedBytes, saveMs, pages, zeroPages, unchangedPages } =
    result;
  const { newChunks, reusedChunks, storedBytes, movedFrom = null } = result;
  output.result(
    {
      id,
      tag,
      movedFrom,
      parent,
      pauseMs,
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
  if (tag !== null && movedFrom !== null) output.remark(taggedSentence(id, tag, movedFrom));
  const count = (n: number) => n.toLocaleString('en');
  output.remark(
    [
      `${formatBytes(pages * 4096)} in ${formatMs(saveMs)}`,
      pauseMs > 0 ? `, standing still for ${formatMs(pauseMs)}` : '',
      parent === null ? '' : `, on top of ${shortId(parent)}`,
      storedWhilePausedBytes > 0
        ? `\nStored ${formatBytes(storedWhilePausedBytes)} during the pause: the guest writes its memory too fast to store it while it runs`
        : '',
      `\npages: ${count(zeroPages)} zero, ${count(unchangedPages)} unchanged, `,
      `${count(reusedChunks)} known, ${count(newChunks)} new; ${formatBytes(storedBytes)} stored`,
    ].join(''),
  );
}

export const verb = defineVerb({
  name: 'save',
  summary: 'save a machine as a snapshot and print its id',
  operands: ['<machine>'],
  options: {
    tag: valued('--tag <label>', 'a name for the snapshot', parseText),
    then: valued(
      '--then <word>',
      'resume, pause or stop the machine (default: as it was)',
      parseWord('resume', 'pause', 'stop'),
    ),
  },
  notes:
    'Without --store and LIVESNAP_STORE the snapshot goes to the store that the machine was started with or restored from.',
  async run({ operands, options, output, namedStoreDir }) {
    const [name] = operands as [string];
    const { findMachine } = await import('../server/client.js');
    const client = await findMachine(name);
    const ended = options.then === 'stop' ? await client.directory.watchEnd() : null;
    const request = {
      store: namedStoreDir,
      tag: options.tag ?? null,
      then: options.then ?? null,
    };
    const result = await output.withProgress(`saving ${name}`, (progress) => client.save(request, progress));
    await ended?.(30_000);
    printSave(output, result);
    return 0;
  },
});
