/** A list of packs as it is sent to a page Worker (`PackList`). */
import type { PackList } from './page-jobs.js';

export function packList(
  packs: readonly { readonly number: number; readonly generation: number }[],
): PackList {
  const list = new Uint32Array(packs.length * 2);
  packs.forEach(({ number, generation }, i) => {
    list[2 * i] = number;
    list[2 * i + 1] = generation;
  });
  return list;
}

/** The generation of each pack, by its number. */
export function generationsOf(list: PackList): Map<number, number> {
  const generations = new Map<number, number>();
  for (let i = 0; i < list.length; i += 2) generations.set(list[i]!, list[i + 1]!);
  return generations;
}
