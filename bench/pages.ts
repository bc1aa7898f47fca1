/**
 * Page work by the native and by the portable code: seconds per GiB, and their ratio. The ratio is why the native page
 * code exists. Both make the same calls on the same bytes in one process.
 */

import { randomFillSync } from 'node:crypto';
import { loadNativePageOps, loadPortablePageOps, type PageOps } from '../src/native/pages.js';
import { PAGE_BYTES } from '../src/page-stream.js';
import { DIGEST_BYTES, DIGESTS } from '../src/store/pack/digest.js';
import { FRAME_BYTES, FRAME_CHUNKS } from '../src/store/pack/pack-format.js';

const MIB = 1 << 20;
const SIZE = 64 * MIB;
const FRAMES = SIZE / FRAME_BYTES;

/** A quarter zero, a quarter noise, half text. */
function mixedPages(): Uint8Array {
  const bytes = Buffer.from(new SharedArrayBuffer(SIZE));
  const noise = Buffer.alloc(SIZE / 4);
  randomFillSync(noise);
  bytes.set(noise, SIZE / 4);
  for (let at = SIZE / 2, n = 1; at < SIZE; at += 16, n = (Math.imul(n, 1103515245) + 12345) >>> 0)
    bytes.write(`entry ${(n >>> 8) % 50000}`.padEnd(16), at, 'latin1');
  return bytes;
}

function secondsPerGib(work: () => void): number {
  work();
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 3; i++) {
    const start = process.hrtime.bigint();
    work();
    best = Math.min(best, Number(process.hrtime.bigint() - start) / 1e9);
  }
  return (best * 1024 * MIB) / SIZE;
}

const pages = mixedPages();
const copy = new Uint8Array(pages);
const hashes = new Uint8Array((SIZE / PAGE_BYTES) * 8);
const sum = new Uint8Array(8);
const digests = new Uint8Array(FRAME_CHUNKS * DIGEST_BYTES);

const jobs: Record<string, (ops: PageOps) => () => void> = {
  'zero scan and XXH64 of pages': (ops) => () => ops.hashPages(pages, SIZE / PAGE_BYTES, hashes),
  'XXH64 of frames': (ops) => () => {
    for (let i = 0; i < FRAMES; i++) ops.checksum(pages, i * FRAME_BYTES, FRAME_BYTES, i, 0, sum);
  },
  ...Object.fromEntries(
    DIGESTS.map(({ name, compute }) => [
      `${name} of the pages of frames`,
      (ops: PageOps) => () => {
        for (let at = 0; at < SIZE; at += FRAME_BYTES)
          compute(ops, pages.subarray(at, at + FRAME_BYTES), FRAME_CHUNKS, digests);
      },
    ]),
  ),
  'comparison of pages': (ops) => () => {
    for (let at = 0; at < SIZE; at += PAGE_BYTES) ops.equal(pages, at, copy, at, PAGE_BYTES);
  },
  'LZ4 compression of frames': (ops) => () => {
    const block = new Uint8Array(FRAME_BYTES);
    for (let at = 0; at < SIZE; at += FRAME_BYTES)
      ops.compress(pages.subarray(at, at + FRAME_BYTES), FRAME_BYTES, block, 0, FRAME_BYTES);
  },
  'LZ4 decompression of frames': (ops) => {
    const blocks: Uint8Array[] = [];
    for (let at = 0; at < SIZE; at += FRAME_BYTES) {
      const block = new Uint8Array(FRAME_BYTES + 4096);
      const size = ops.compress(pages.subarray(at, at + FRAME_BYTES), FRAME_BYTES, block, 0, block.length);
      blocks.push(block.subarray(0, size));
    }
    const raw = new Uint8Array(FRAME_BYTES);
    return () => {
      for (const block of blocks) ops.decompress(block, 0, block.length, raw, 0, FRAME_BYTES);
    };
  },
};

const native = loadNativePageOps();
const portable = await loadPortablePageOps();
console.log(`seconds per GiB (a quarter zero, a quarter noise, half text; frames of ${FRAME_CHUNKS} pages)`);
console.log(`${''.padEnd(32)}${'native'.padStart(8)}${'portable'.padStart(10)}${'ratio'.padStart(8)}`);
for (const [name, job] of Object.entries(jobs)) {
  const [n, p] = [native, portable].map((ops) => secondsPerGib(job(ops))) as [number, number];
  console.log(
    `${name.padEnd(32)}${n.toFixed(3).padStart(8)}${p.toFixed(3).padStart(10)}${(p / n).toFixed(1).padStart(8)}`,
  );
}
