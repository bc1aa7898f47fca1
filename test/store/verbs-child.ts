/**
 * A child process that runs all verbs on the store DIR and prints their outcomes as JSON:
 *
 * - `DIR ID`: every verb but repair. ID is the snapshot to read, and the parent of a save.
 * - `DIR repair [FILES]`: a repair, which may have FILES files open, and its peak memory.
 */

import { execFileSync } from 'node:child_process';
import { LivesnapError } from '../../src/errors.js';
import { Store } from '../../src/store/store.js';
import {
  newSession,
  pageWorker,
  pageWorkerCount,
  releasePageWorkers,
  usePageWorkers,
} from '../../src/store/worker/page-pool.js';
import { peakRssKiB } from './peak-memory.js';
import { load, noise, save } from './scratch.js';

/** The result of a verb, or its error. */
export type Outcome = { readonly value: unknown } | { readonly code: string; readonly message: string };

export async function outcomeOf(work: () => unknown): Promise<Outcome> {
  try {
    return { value: (await work()) ?? null };
  } catch (error) {
    if (!(error instanceof LivesnapError)) throw error;
    return { code: error.code, message: error.message };
  }
}

/** Node opens all files of a program at once: the limit holds from when the page Workers have loaded theirs. */
async function limitOpenFiles(files: string): Promise<void> {
  usePageWorkers();
  await Promise.all(
    Array.from({ length: pageWorkerCount }, (_, i) => pageWorker(i).do('packEnd', { session: newSession() })),
  );
  execFileSync('prlimit', ['--pid', String(process.pid), `--nofile=${files}:${files}`]);
}

const [dir, id, files] = process.argv.slice(2) as [string, string, string?];
if (id === 'repair') {
  if (files !== undefined) await limitOpenFiles(files);
  const outcome = await outcomeOf(() => Store.repair(dir));
  console.log(JSON.stringify({ ...outcome, maxRssKiB: peakRssKiB() }));
  if (files !== undefined) releasePageWorkers();
} else {
  const store = Store.open(dir, { write: true });
  const ram = noise(1, 100);
  noise(77, 1).copy(ram);
  const verbs = {
    check: () => store.check({ readData: false }),
    checkData: () => store.check({ readData: true }),
    list: () => store.list().length,
    show: () => store.show(id),
    stats: () => store.stats(),
    load: async () => void (await load(store, id)),
    gcDry: () => store.gc({ dryRun: true }),
    gc: () => store.gc({ dryRun: false }),
    save: () => save(store, { 'ram@0x0': ram }, { parent: id, only: { 'ram@0x0': [0] } }),
    saveFull: () => save(store, { 'ram@0x0': ram }),
    tag: () => store.addTags(id, ['again']),
  };
  const outcomes: Record<string, Outcome> = {};
  for (const [verb, work] of Object.entries(verbs)) outcomes[verb] = await outcomeOf(work);
  console.log(JSON.stringify(outcomes));
  store.close();
}
