/** Eight images in one repository of borg and restic, and in one store: bytes on disk. Ratios are the peer's bytes by ours. */
import { join } from 'node:path';
import { Store } from '../../src/store/store.js';
import { bytesBelow } from '../harness/disk-usage.js';
import type { Context, Entry, Figure } from '../harness/figure.js';
import { imagePaths, readImage } from '../harness/images.js';
import { createBorg, createRestic, missingPeers } from '../harness/peers.js';
import { saveInFull } from '../harness/stored-memory.js';

async function measure(context: Context): Promise<readonly Figure[]> {
  const paths = imagePaths(context, 8);
  const missing = missingPeers();
  const store = Store.open(join(context.dir, 'store'), { write: true, create: true });
  for (const path of paths) await saveInFull(store, readImage(path));
  store.close();
  const ours = [bytesBelow(join(context.dir, 'store')) / 1e6];
  const figures: Figure[] = [];
  for (const [name, needed, create] of [
    ['borg, LZ4', 'borgbackup', createBorg],
    ['restic', 'restic', createRestic],
  ] as const) {
    if (missing.includes(needed)) {
      process.stderr.write(`bench: not installed, so not measured: ${needed}\n`);
      continue;
    }
    const dir = join(context.dir, needed);
    const repository = create(dir);
    for (const [i, path] of paths.entries()) repository.backUp(`image-${i}`, path);
    figures.push({
      ...{
        name: `peer-images: ${name}, ${paths.length} images`,
        unit: 'MB',
        values: [bytesBelow(dir) / 1e6],
      },
      ...{ reference: { name: 'our store', values: ours }, isRate: true, target: 1, margin: 0.02 },
    });
  }
  return figures;
}

export const entry: Entry = { summary: 'bytes of eight images in borg and restic, beside ours', measure };
