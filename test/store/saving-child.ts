/**
 * A process of its own that works on a store: `DIR N` saves pages of seed 1000 + N until it is killed; `DIR put FILE`,
 * `DIR get ID FILE` and `DIR check` do that once; `DIR forget FILE` puts it and does not close the store, `DIR miss`
 * asks for a snapshot that is not there and does not either; `DIR race FILE GO` puts FILE as soon as the file GO is there, and makes
 * the store.
 */
import { existsSync } from 'node:fs';
import { Store } from '../../src/store/store.js';
import { MemorySource, machineMetadata, noise } from './scratch.js';

const [dir, verb, ...args] = process.argv.slice(2) as [string, string, ...string[]];
if (verb === 'race') {
  console.log('ready');
  while (!existsSync(args[1]!)); // begins within microseconds of the others
}
const store = Store.open(dir, { write: true, create: true });
switch (verb) {
  case 'race':
  case 'put':
    console.log(JSON.stringify(await store.put(args[0]!, { tag: null, name: null })));
    await store.tidy();
    break;
  case 'forget':
    await store.put(args[0]!, { tag: null, name: null });
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
      const session = await store.beginSave({ parent: null });
      await session.store(new MemorySource(contents));
      await session.commit(machineMetadata({ vm: verb, tag: `t${verb}` }));
      await store.tidy();
    }
  }
}
if (verb !== 'forget' && verb !== 'miss') store.close();
