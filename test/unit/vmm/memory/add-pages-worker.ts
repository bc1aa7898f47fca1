/** Adds every page once, one at a time, while another thread takes them. */
import { workerData } from 'node:worker_threads';
import { WrittenPages } from '../../../../src/vmm/memory/written-pages.js';

const { shared, pages } = workerData as { shared: SharedArrayBuffer; pages: number };
const written = new WrittenPages(shared);
for (let page = 0; page < pages; page++) written.add(page, 1);
