/**
 * A child process that works on the store DIR:
 *
 * - `DIR N`: saves the pages of seed 1000 + N again and again, until it is killed.
 * - `DIR put FILE`, `DIR get ID FILE`, `DIR check`: runs the verb once.
 * - `DIR forget FILE`: puts the file, and does not close the store.
 * - `DIR miss`: opens a snapshot that does not exist, and does not close the store.
 * - `DIR race FILE GO`: when the file GO appears, creates the store and puts FILE.
 */
import { existsSync } from 'node:fs';
import { pageOpsLoaded } from '../../src/native/pages.js';
import { Store } from '../../src/store/store.js';
import { MemorySource, machineMetadata, noise } from './scratch.js';

const [dir, verb, ...args] = process.argv.slice(2) as [string, string, ...string[]];
if (verb === 'race') {
  console.log('ready');
  const parent = process.ppid;
  const aside = new Int32Array(new SharedArrayBuffer(4));
  // All children start within a fraction of a millisecond, and none keeps a processor from the others.
  while (!existsSync(args[1]!)) {
    Atomics.wait(aside, 0, 0, 0.2);
    if (process.ppid !== parent) process.exit(1); // the test has been killed
  }
}
await pageOpsLoaded;
const store = Store.open(dir, { write: true, create: true });
switch (verb) {
  case 'race':
  case 'put':
    console.log(JSON.stringify(await store.put(args[0]!, { tags: [], name: null })));
    await store.tidy();
    break;
  case 'forget':
    await store.put(args[0]!, { tags: [], name: null });
    break;
  case 'miss':
    await store.openSnapshot('none').catch(() => {});
    break;
  case 'get':
    console.log(JSON.stringify(await store.get(args[0]!, args[1]!)));
    break;
  case 'check':
    console.log(JSON.stringify(await store.check({ readData: true })));
    break;
  default: {
    const contents = { 'ram@0x0': noise(1000 + Number(verb), 3000) };
    console.log('saving');
    for (;;) {
      const session = await store.beginSave({ regions: [] });
      await session.store(new MemorySource(contents));
      await session.commit(machineMetadata({ vm: verb, tags: [`t${verb}`] }));
      await store.tidy();
    }
  }
}
if (verb !== 'forget' && verb !== 'miss') store.close();
