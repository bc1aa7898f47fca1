/**
 * How many chunks a frame should have: compression ratio, save time, read time, and the time to read one page. The data
 * is the Node program: like a page cache, it is code and its data.
 */
import { readFileSync } from 'node:fs';
import { loadNativePageOps } from '../src/native/pages.js';
import { PAGE_BYTES } from '../src/page-stream.js';

const MIB = 1 << 20;
const ops = loadNativePageOps();
const file = readFileSync(process.execPath).subarray(0, 64 * MIB);
const bytes = file.subarray(0, file.length - (file.length % (64 * PAGE_BYTES)));

console.log(`${bytes.length / MIB} MiB of ${process.execPath}`);
console.log(
  `${'chunks'.padStart(6)}${'ratio'.padStart(8)}${'save s/GiB'.padStart(12)}${'read s/GiB'.padStart(12)}${'one page µs'.padStart(13)}`,
);
for (const chunks of [1, 2, 4, 8, 16, 32, 64]) {
  const frameBytes = chunks * PAGE_BYTES;
  const block = new Uint8Array(frameBytes);
  const raw = new Uint8Array(frameBytes);
  const best = { save: Number.POSITIVE_INFINITY, read: Number.POSITIVE_INFINITY };
  let stored = 0;
  for (let round = 0; round < 3; round++) {
    stored = 0;
    const blocks: Uint8Array[] = [];
    let start = process.hrtime.bigint();
    for (let at = 0; at < bytes.length; at += frameBytes) {
      const size = ops.compress(
        bytes.subarray(at, at + frameBytes),
        frameBytes,
        block,
        0,
        frameBytes - (frameBytes >> 4),
      );
      stored += 32 + (size || frameBytes);
      blocks.push(size > 0 ? block.slice(0, size) : bytes.subarray(at, at + frameBytes));
    }
    best.save = Math.min(best.save, Number(process.hrtime.bigint() - start) / 1e9);
    start = process.hrtime.bigint();
    for (const stored of blocks)
      if (stored.length < frameBytes) ops.decompress(stored, 0, stored.length, raw, 0, frameBytes);
      else raw.set(stored);
    best.read = Math.min(best.read, Number(process.hrtime.bigint() - start) / 1e9);
  }
  const perGib = (1024 * MIB) / bytes.length;
  const onePage = (best.read / (bytes.length / frameBytes)) * 1e6;
  console.log(
    `${String(chunks).padStart(6)}${(bytes.length / stored).toFixed(2).padStart(8)}${(best.save * perGib).toFixed(2).padStart(12)}${(best.read * perGib).toFixed(2).padStart(12)}${onePage.toFixed(1).padStart(13)}`,
  );
}
