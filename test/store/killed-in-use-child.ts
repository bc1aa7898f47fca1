/** Opens the store `DIR`, renames a tag and is killed: the commits stay in the log of the index. */
import { Store } from '../../src/store/store.js';

const store = Store.open(process.argv[2]!, { write: true });
const id = store.resolve('t2');
store.removeTags(['t2']);
store.addTags(id, ['renamed']);
process.kill(process.pid, 'SIGKILL');
