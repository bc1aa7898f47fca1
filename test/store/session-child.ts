/** A child process that holds a session on a store until it is killed: `DIR pin ID` or `DIR save ID`. */
import { Store } from '../../src/store/store.js';
import { basedOn, MemorySource, noise } from './scratch.js';

const [dir, verb, id] = process.argv.slice(2) as [string, string, string];
const store = Store.open(dir, { write: true });
if (verb === 'pin') await store.openSnapshot(id);
else {
  const session = await store.beginSave({ regions: basedOn(id) });
  await session.store(new MemorySource({ 'ram@0x0': noise(7, 300) }));
}
console.log('ready');
setInterval(() => {}, 1000);
