/**
 * Eight images in one store, each saved in full: bytes on disk, compared with the LZ4 frames of 16 pages that hold each
 * different page once. Then the same after `gc --recompress`, compared with frames of LZ4-HC, and how fast that is.
 * `--image` gives others.
 */
import { join } from 'node:path';
import { Store } from '../../src/store/store.js';
import { bytesBelow } from '../harness/disk-usage.js';
import type { Context, Entry, Figure } from '../harness/figure.js';
import { imagePaths, readImage } from '../harness/images.js';
import { bareLimit } from '../harness/limit.js';
import { saveInFull } from '../harness/stored-memory.js';

const IMAGES = 8;
/** What gc --recompress uses (addon/pages.cc). */
const HIGH_LEVEL = 9;

async function measure(context: Context): Promise<readonly Figure[]> {
  const paths = imagePaths(context, IMAGES);
  const path = join(context.dir, 'store');
  const store = Store.open(path, { write: true, create: true });
  for (const image of paths) await saveInFull(store, readImage(image));
  const savedMb = bytesBelow(path) / 1e6;
  const begun = performance.now();
  await store.gc({ dryRun: false, recompress: true });
  const seconds = (performance.now() - begun) / 1000;
  const uniqueMb = store.stats().uniqueBytes / 1e6;
  store.close();
  const recompressedMb = bytesBelow(path) / 1e6;
  const limit = bareLimit(paths, context.dir, 1);
  const highLimit = bareLimit(paths, context.dir, 1, HIGH_LEVEL);
  return [
    {
      ...{ name: `images: ${paths.length} in one store`, unit: 'MB', values: [savedMb] },
      reference: limit && { name: 'LZ4 of 16-page frames', values: [limit.frameBytes / 1e6] },
      ...{ target: limit && 1.015, margin: 0.005 },
    },
    {
      ...{ name: 'images: the same, recompressed', unit: 'MB', values: [recompressedMb] },
      reference: highLimit && { name: 'LZ4-HC of 16-page frames', values: [highLimit.frameBytes / 1e6] },
      ...{ target: highLimit && 1.015, margin: 0.005 },
    },
    {
      ...{ name: 'images: recompression of pages', unit: 'MB/s', values: [uniqueMb / seconds] },
      ...{ reference: null, target: null, margin: 0.5, isRate: true },
    },
  ];
}

export const entry: Entry = { summary: 'bytes on disk of eight images, beside LZ4 alone', measure };
