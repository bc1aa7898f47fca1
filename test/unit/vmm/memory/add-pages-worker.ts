/** Adds every page once, one at a time, while another thread takes them. */
import { workerData } from 'node:worker_threads';
import { SharedBits } from '../../../../src/vmm/memory/shared-bits.js';

const { shared, pages } = workerData as { shared: SharedArrayBuffer; pages: number };
const written = new SharedBits(shared);
for (let page = 0; page < pages; page++) written.addRange(page, 1);
