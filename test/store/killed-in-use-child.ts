/** Opens the store `DIR`, tags a snapshot and is killed: the commit stays in the log of the index. */
import { Store } from '../../src/store/store.js';

const store = Store.open(process.argv[2]!, { write: true });
store.setTag('t2', 'renamed');
process.kill(process.pid, 'SIGKILL');
