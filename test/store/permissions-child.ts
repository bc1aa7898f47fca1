/** Runs verbs on a store and prints the outcome of each. permissions.test.ts runs it as another user: `DIR VERB...` */
import { join } from 'node:path';
import type { LivesnapError } from '../../src/errors.js';
import { Store } from '../../src/store/store.js';
import { load, noise, save } from './scratch.js';

const [dir, ...verbs] = process.argv.slice(2) as [string, ...string[]];

const work: Record<string, { write: boolean; run: (store: Store) => unknown }> = {
  save: { write: true, run: (store) => save(store, { ram: noise(process.pid, 40) }, { tag: 'own' }) },
  put: { write: true, run: (store) => store.put(join(dir, '..', 'secret'), { tags: [], name: null }) },
  tag: { write: true, run: (store) => store.addTags('own', ['own']) },
  rm: { write: true, run: (store) => store.remove(['own']) },
  gc: { write: true, run: (store) => store.gc({ dryRun: false }) },
  'gc --dry-run': { write: false, run: (store) => store.gc({ dryRun: true }) },
  list: { write: false, run: (store) => store.list() },
  read: { write: false, run: (store) => load(store, 'own') },
  check: { write: false, run: (store) => store.check({ readData: true }) },
};

async function run(verb: string): Promise<void> {
  if (verb === 'repair') {
    await Store.repair(dir);
    return;
  }
  const { write, run } = work[verb]!;
  const store = Store.open(dir, { write, create: verb === 'save' });
  try {
    await run(store);
  } finally {
    store.close();
  }
}

const outcomes: object[] = [];
for (const verb of verbs)
  outcomes.push(
    await run(verb).then(
      () => ({}),
      (error: LivesnapError) => ({ code: error.code ?? 'none', message: error.message, hint: error.hint }),
    ),
  );
console.log(JSON.stringify(outcomes));
process.exit();
