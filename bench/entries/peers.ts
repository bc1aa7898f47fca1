/**
 * Full saves of the image by QEMU, borg and restic, beside ours in the same rounds and on the same disk. Ratios are the
 * peer's time divided by ours: larger is better.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { Store } from '../../src/store/store.js';
import type { Context, Entry, Figure } from '../harness/figure.js';
import { imagePaths, readImage } from '../harness/images.js';
import { createBorg, createRestic, missingPeers, qemuRestore, qemuSave } from '../harness/peers.js';
import { StoredMemory } from '../harness/stored-memory.js';

async function measure(context: Context): Promise<readonly Figure[]> {
  const [path] = imagePaths(context, 1);
  const memory = new StoredMemory(readImage(path!));
  const pages = memory.everyPage();
  const missing = missingPeers();
  for (const name of missing) process.stderr.write(`bench: not installed, so not measured: ${name}\n`);
  const ours: number[] = [];
  const found: Record<string, number[]> = { qemu: [], incoming: [], borg: [], restic: [] };
  for (let round = -1; round < context.rounds; round++) {
    const at = (name: string): string => join(context.dir, `${name}${round}`);
    const store = Store.open(at('store'), { write: true, create: true });
    await store.put(new URL(import.meta.url).pathname, { tags: [], name: null });
    const begun = performance.now();
    await memory.save(store, pages, null);
    const ms = performance.now() - begun;
    store.close();
    if (round < 0) continue;
    ours.push(ms);
    if (!missing.includes('qemu-system-x86')) {
      found.qemu!.push(await qemuSave(path!, memory.bytes.length, at('qemu')));
      found.incoming!.push(await qemuRestore(memory.bytes.length, at('qemu')));
    }
    if (!missing.includes('borgbackup')) found.borg!.push(createBorg(at('borg')).backUp('image', path!));
    if (!missing.includes('restic')) found.restic!.push(createRestic(at('restic')).backUp('image', path!));
    for (const name of ['store', 'qemu', 'borg', 'restic'])
      rmSync(at(name), { recursive: true, force: true });
  }
  memory.close();
  const figure = (name: string, values: number[], target: number | null): Figure[] =>
    values.length === 0
      ? []
      : [
          {
            ...{ name: `peers: ${name}`, unit: 'ms', values, isRate: true, target, margin: 0.5 },
            reference: { name: 'our full save', values: ours },
          },
        ];
  return [
    // Ours may take 1.2 times as long.
    ...figure('QEMU, migration to a file and fsync', found.qemu!, 0.83),
    ...figure('borg, LZ4', found.borg!, 5),
    ...figure('restic', found.restic!, null),
    ...figure('QEMU -incoming, from its start', found.incoming!, null).map((each) => ({
      ...each,
      ...{ reference: null, isRate: false },
    })),
  ];
}

export const entry: Entry = { summary: 'full saves by QEMU, borg and restic, beside ours', measure };
