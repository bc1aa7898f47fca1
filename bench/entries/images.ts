/**
 * Eight images in one store, each saved in full: bytes on disk, compared with the LZ4 frames of 16 pages that hold each
 * different page once. `--image` gives others.
 */
import { join } from 'node:path';
import { Store } from '../../src/store/store.js';
import { bytesBelow } from '../harness/disk-usage.js';
import type { Context, Entry, Figure } from '../harness/figure.js';
import { imagePaths, readImage } from '../harness/images.js';
import { bareLimit } from '../harness/limit.js';
import { saveInFull } from '../harness/stored-memory.js';

const IMAGES = 8;

async function measure(context: Context): Promise<readonly Figure[]> {
  const paths = imagePaths(context, IMAGES);
  const path = join(context.dir, 'store');
  const store = Store.open(path, { write: true, create: true });
  for (const image of paths) await saveInFull(store, readImage(image));
  store.close();
  const limit = bareLimit(paths, context.dir, 1);
  return [
    {
      ...{ name: `images: ${paths.length} in one store`, unit: 'MB', values: [bytesBelow(path) / 1e6] },
      reference: limit && { name: 'LZ4 of 16-page frames', values: [limit.frameBytes / 1e6] },
      ...{ target: limit && 1.015, margin: 0.005 },
    },
  ];
}

export const entry: Entry = { summary: 'bytes on disk of eight images, beside LZ4 alone', measure };
