/**
 * The command line from the start of its process to its end: `--version`, `ls` of 1,000 snapshots, `start` and `restore`
 * with `--detach`. Rounds of all commands alternate with those of bare Node, which they are compared with.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../src/native/project-root.js';
import { Store } from '../../src/store/store.js';
import { CommandLine, PROBE } from '../harness/command-line.js';
import { type Context, type Entry, type Figure, median } from '../harness/figure.js';

const SNAPSHOTS = 1000;

async function fillStore(dir: string): Promise<void> {
  const store = Store.open(join(dir, 'store'), { write: true, create: true });
  const file = join(dir, 'file');
  for (let i = 0; i < SNAPSHOTS; i++) {
    writeFileSync(file, `snapshot ${i}`);
    await store.put(file, { tags: [], name: null });
  }
  store.close();
}

async function measure({ dir, rounds }: Context): Promise<readonly Figure[]> {
  await fillStore(dir);
  const commands = new CommandLine(dir);
  const sqlite = join(dir, 'sqlite.cjs');
  // Node 20 has a better-sqlite3 of its own (src/native/modules.ts).
  const name = process.versions.modules === '115' ? 'better-sqlite3-node20' : 'better-sqlite3';
  const module = JSON.stringify(join(projectRoot, 'node_modules', name));
  writeFileSync(sqlite, `new (require(${module}))(':memory:').exec('select 1')`);
  const start = (name: string, memory: string): number =>
    commands.run('start', '--kernel', PROBE, '--memory', memory, '--name', name, '--detach').ms;
  const stop = (name: string): unknown => commands.run('stop', name, '--force');
  for (const [name, memory] of [
    ['small', '256M'],
    ['large', '4G'],
  ] as const) {
    start(name, memory);
    commands.run('save', name, '--tag', name);
    stop(name);
  }
  const restore = (tag: string): number => {
    const { ms } = commands.run('restore', tag, '--name', 'again', '--detach');
    stop('again');
    return ms;
  };
  const jobs = {
    node: () => commands.node('-e', '0').ms,
    sqlite: () => commands.node(sqlite).ms,
    version: () => commands.run('--version').ms,
    ls: () => commands.run('ls').ms,
    start: () => {
      const ms = start('fresh', '32M');
      stop('fresh');
      return ms;
    },
    small: () => restore('small'),
    large: () => restore('large'),
  };
  const found = Object.fromEntries(Object.keys(jobs).map((name) => [name, []])) as unknown as Record<
    keyof typeof jobs,
    number[]
  >;
  for (let round = -1; round < rounds; round++)
    for (const [name, job] of Object.entries(jobs)) {
      const ms = job();
      if (round >= 0) found[name as keyof typeof jobs].push(ms);
    }
  const node = { name: 'node -e 0', values: found.node };
  const figure = (name: string, values: number[], rest: Partial<Figure>): Figure => ({
    ...{ name: `startup: ${name}`, unit: 'ms', values, reference: node, target: null, margin: 0.4 },
    ...rest,
  });
  return [
    figure('--version', found.version, {}),
    figure(`ls of ${SNAPSHOTS} snapshots`, found.ls, {
      reference: { name: 'node with better-sqlite3', values: found.sqlite },
      target: 1.5,
    }),
    figure('start, 32 MiB', found.start, {}),
    figure('restore, 256 MiB, lazy', found.small, {
      // The target is twice Node and 60 ms, in one ratio.
      reference: { name: '2 × node -e 0 + 60 ms', values: found.node.map((ms) => 2 * ms + 60) },
      target: 1,
    }),
    figure('restore, 4 GiB, lazy', found.large, {
      reference: { name: `256 MiB, ${median(found.small).toFixed(0)} ms`, values: found.small },
      target: 1.1,
    }),
  ];
}

export const entry: Entry = { summary: 'commands from start to end, beside bare Node', measure };
