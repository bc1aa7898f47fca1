/**
 * `npm run bench`: measures entries, each in a process of its own without NODE_EXTRA_CA_CERTS, which adds 50 ms to each
 * start of Node. Prints a table and writes bench/results/. bench/README.md describes the options.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { projectRoot } from '../src/native/addon.js';
import { argumentsOf } from '../test/arguments.js';
import { BY_DEFAULT, ENTRIES, isEntryName } from './entries.js';
import type { Context, Figure } from './harness/figure.js';
import { inputName } from './harness/images.js';
import { findWorse, hostKind, readResults, table, writeResults } from './harness/results.js';

function fail(sentence: string): never {
  process.stderr.write(`bench: ${sentence}\n`);
  process.exit(2);
}

const { values: options, positionals } = argumentsOf('bench', {
  allowPositionals: true,
  options: {
    image: { type: 'string', multiple: true, default: [] },
    rounds: { type: 'string', default: '5' },
    dir: { type: 'string', default: join(projectRoot, 'dist') },
    guard: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
  },
});

const inChild = async (name: string): Promise<void> => {
  if (!isEntryName(name)) fail(`there is no entry ${name}`);
  const [context] = (await once(process, 'message')) as [Context];
  const { entry } = await ENTRIES[name]();
  const figures = await entry.measure(context);
  process.send!(figures, () => process.exit());
};

async function measureEntry(name: string): Promise<readonly Figure[]> {
  const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
  const dir = mkdtempSync(join(resolve(options.dir), 'bench-'));
  try {
    const child = fork(new URL(import.meta.url), [name], { env: { ...env, LIVESNAP_BENCH_CHILD: '1' } });
    const context: Context = {
      dir,
      images: options.image.map((path) => resolve(path)),
      rounds: Number(options.rounds),
    };
    child.send(context);
    let figures: readonly Figure[] | null = null;
    child.on('message', (message) => {
      figures = message as readonly Figure[];
    });
    const [code] = (await once(child, 'exit')) as [number | null];
    if (figures === null) throw new Error(`${name} ended with status ${code} and no figures`);
    return figures;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

async function main(): Promise<void> {
  if (options.list) {
    for (const [name, load] of Object.entries(ENTRIES))
      console.log(`${name.padEnd(12)}${(await load()).entry.summary}`);
    return;
  }
  if (!(Number(options.rounds) >= 5)) fail('--rounds must be at least 5: a median of fewer says little');
  // `--image A B` gives B as a positional; a name of an entry has no dot and no slash.
  const names = positionals.filter((word) => !/[./]/.test(word));
  options.image.push(...positionals.filter((word) => /[./]/.test(word)));
  for (const name of names) if (!isEntryName(name)) fail(`there is no entry ${name}; --list shows them`);
  const host = hostKind(options.dir);
  const committed = readResults(host);
  const input = inputName(options.image);
  const worse: string[] = [];
  for (const name of names.length > 0 ? names : BY_DEFAULT) {
    const figures = await measureEntry(name);
    console.log(`\n${name}, ${input}\n\n${table(figures)}`);
    if (!options.guard) console.log(`\nwritten to ${writeResults(host, input, figures)}`);
    else if (committed !== null) worse.push(...findWorse(committed, input, figures));
  }
  if (!options.guard) return;
  if (committed === null) {
    console.log(
      `\nNo results of this kind of host are committed (${JSON.stringify(host)}): nothing to compare with.`,
    );
    return;
  }
  for (const sentence of worse) process.stderr.write(`${sentence}\n`);
  if (worse.length > 0) process.exitCode = 1;
  else console.log('\nNo figure is worse than its margin allows.');
}

await (process.env.LIVESNAP_BENCH_CHILD === '1' ? inChild(positionals[0] ?? '') : main());
