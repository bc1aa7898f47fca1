import { ExitStatus } from '../errors.js';
import { formatBytes, formatCount } from '../format.js';
import { StoreVerbs } from '../host/store-verbs.js';
import type { GcResult, Recompression } from '../store/gc/gc.js';
import { freedText } from './gc-output.js';
import { onInterruption } from './interruption.js';
import { parseSize } from './values.js';
import { defineVerb, flag, valued } from './verb.js';

export const verb = defineVerb({
  name: 'gc',
  operands: [],
  options: {
    dryRun: flag('--dry-run', 'Show what would be freed, delete nothing'),
    maxRepack: valued('--max-repack <size>', 'Rewrite at most SIZE of pack files', parseSize),
    recompress: flag('--recompress', 'Make pack files smaller with LZ4-HC'),
    idle: flag('--idle', 'Rewrite packs only while the host is idle'),
  },
  notes: [
    'The store keeps data in pack files. gc deletes packs in which nothing is',
    'referenced. It rewrites other packs to drop their unreferenced data.',
    '--recompress also rewrites packs that LZ4-HC has not compressed yet, one after',
    'the other. Ctrl-C stops it after the current pack.',
    '--idle leaves the processors and the disk to everything else that runs.',
  ].join('\n'),
  async run({ options, output, storeDir }) {
    const { dryRun, maxRepack, recompress, idle } = options;
    const interruption = new AbortController();
    let interruptedBy: NodeJS.Signals | null = null;
    // Without --recompress an interruption ends the process: gc may be killed at any time.
    const stopListening = recompress
      ? onInterruption((signal) => {
          interruptedBy = signal;
          interruption.abort();
          output.say('Stopping after the current pack.');
        })
      : () => {};
    const asked = {
      ...{ dryRun, recompress, idle, endEarly: interruption.signal },
      ...(maxRepack === undefined ? {} : { maxRepackBytes: maxRepack }),
    };
    const result = await output.withProgress(recompress ? 'recompressing' : 'collecting', (onProgress) =>
      new StoreVerbs(storeDir).gc({ ...asked, onProgress }),
    );
    const { removedChunks, freedBytes, recompressed } = result;
    output.result({ removedChunks, freedBytes, ...(recompressed && { recompressed }) }, () =>
      linesOf(result, dryRun).join('\n'),
    );
    stopListening();
    if (interruptedBy) process.kill(process.pid, interruptedBy);
    return recompressed ? statusOf(recompressed) : 0;
  },
});

const statusOf = ({ leftPacks }: Recompression): number => {
  if (leftPacks.damaged > 0) return ExitStatus.damaged;
  return leftPacks.noSpace > 0 ? ExitStatus.failed : 0;
};

/** Why packs stay as they are. */
const REASONS = {
  held: 'in use',
  damaged: 'damaged',
  noSpace: 'no space for the new file',
  overLimit: 'over --max-repack',
  interrupted: 'interrupted',
} as const;

function linesOf(result: GcResult, dryRun: boolean): string[] {
  const { recompressed } = result;
  const about = dryRun && recompressed !== null && recompressed.packs > 0 ? 'about ' : '';
  const freed = `${about}${freedText(result)}`;
  const lines = [dryRun ? `Would free ${freed}` : `Freed ${freed}`];
  if (recompressed === null) return lines;
  const { packs, beforeBytes, afterBytes, leftPacks } = recompressed;
  const sizes = packs === 0 ? '' : `: ${formatBytes(beforeBytes)} to ${about}${formatBytes(afterBytes)}`;
  lines.push(`${dryRun ? 'Would recompress' : 'Recompressed'} ${formatCount(packs, 'pack')}${sizes}`);
  const left = Object.entries(REASONS).flatMap(([reason, words]) => {
    const count = leftPacks[reason as keyof typeof REASONS];
    return count === 0 ? [] : [`${formatCount(count, 'pack')} (${words})`];
  });
  if (left.length > 0) lines.push(`Left unchanged: ${left.join(', ')}`);
  return lines;
}
