/**
 * A guest of 1 GiB that is restored and then asked for the sum of its first 32 MiB: lazily, and beside it eagerly. From the
 * call of the restore to the answer. Rounds alternate.
 */
import { join } from 'node:path';
import { connect } from '../../src/host/index.js';
import { PROBE } from '../harness/command-line.js';
import type { Context, Entry, Figure } from '../harness/figure.js';

const SUM_MIB = 32;
/** What the guest fills of its 1 GiB: half of it noise, half compressible. */
const FILL = ['fill 1 440', 'text 2 440'];
const ANSWER_MS = 60_000;

async function measure({ dir, rounds }: Context): Promise<readonly Figure[]> {
  await using host = await connect({ store: join(dir, 'store') });
  const found: Record<'lazy' | 'eager', number[]> = { lazy: [], eager: [] };
  let expected: string;
  {
    await using machine = await host.start({ kernel: PROBE, memoryBytes: 1 << 30 });
    const console = await machine.console();
    const ask = async (line: string, answer: RegExp): Promise<string> => {
      await console.write(`${line}\n`);
      return console.waitFor(answer, { timeoutMs: ANSWER_MS });
    };
    for (const line of FILL) await ask(line, /^OK .*/m);
    expected = await ask(`sum ${SUM_MIB}`, /^SUM [0-9a-f]{16}/m);
    await machine.save({ tags: ['full'] });
  }
  // The first round is not counted: it brings the store into the page cache.
  for (let round = -1; round < rounds; round++)
    for (const fill of ['lazy', 'eager'] as const) {
      const begun = performance.now();
      await using machine = await host.restore('full', { fill });
      const console = await machine.console();
      await console.write(`sum ${SUM_MIB}\n`);
      const sum = await console.waitFor(/^SUM [0-9a-f]{16}/m, { timeoutMs: ANSWER_MS });
      if (round >= 0) found[fill].push(performance.now() - begun);
      if (sum !== expected) throw new Error(`the sum is ${sum} after a restore, it was ${expected}`);
      await machine.stop({ force: true });
    }
  return [
    {
      ...{ name: `lazy: restore of 1 GiB, then sum ${SUM_MIB}`, unit: 'ms', values: found.lazy },
      ...{ reference: { name: 'eager', values: found.eager }, target: 0.5, margin: 0.4 },
    },
  ];
}

export const entry: Entry = {
  summary: 'a lazy restore of 1 GiB and first work, beside an eager one',
  measure,
};
