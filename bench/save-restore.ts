/**
 * Save, pause and restore of a running machine, through the built command line. For comparison: memcpy, LZ4, and a file
 * write with fsync on this host, in the same run, on the same kind of bytes and the same disk.
 *
 * The guest is the probe. Its RAM has a quarter each of random pages, compressible pages, repetitions of these, and
 * pages that were never written. Each round makes a save to an empty store, a second save, and a restore in a new
 * process. bench/README.md explains the table.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { projectRoot } from '../src/native/addon.js';
import { loadNativePageOps, loadPortablePageOps, type PageOps } from '../src/native/pages.js';
import { argumentsOf } from '../test/arguments.js';

const MIB = 1024 * 1024;
/** As a frame of the store: 16 pages, compressed together. */
const BLOCK_BYTES = 64 * 1024;
/** RAM for the guest's own code, stacks and tables. */
const GUEST_OVERHEAD_MIB = 64;

const { values: options } = argumentsOf('bench:save-restore', {
  options: {
    json: { type: 'boolean', default: false },
    sizes: { type: 'string', default: '64,256,1024' },
    rounds: { type: 'string', default: '5' },
    /** Directory of the stores. dist/ is on the project's disk, and git ignores it. */
    dir: { type: 'string', default: join(projectRoot, 'dist') },
  },
});

/** Median, smallest and largest of some rounds. */
interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  const median = (sorted[Math.floor(middle)]! + sorted[Math.ceil(middle)]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)! };
}

function positiveIntegers(text: string, option: string): number[] {
  const numbers = text.split(',').map(Number);
  if (numbers.some((n) => !Number.isSafeInteger(n) || n < 1)) {
    process.stderr.write(`bench: ${option} must be positive whole numbers, not ${text}\n`);
    process.exit(2);
  }
  return numbers;
}

// --- the host

/** Alternating blocks of random bytes and text, like the guest's written pages. */
function mixedBytes(sizeBytes: number): Buffer {
  const words = ['page', 'frame', 'guest', 'memory', 'kernel', 'vcpu', 'table', 'index', '0000', 'struct'];
  const bytes = Buffer.alloc(sizeBytes);
  let state = 0x9e3779b9;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  for (let block = 0; block < sizeBytes; block += BLOCK_BYTES) {
    const end = block + BLOCK_BYTES;
    if ((block / BLOCK_BYTES) % 2 === 0)
      for (let at = block; at < end; at += 4) bytes.writeUInt32LE(next(), at);
    else
      for (let at = block; at < end; )
        at += bytes.write(`${words[next() % words.length]}=${next() & 0xff} `, at);
  }
  return bytes;
}

function seconds(work: () => void): number {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start) / 1e9;
}

interface HostSpeeds {
  /** All in uncompressed bytes per second, on one core. */
  readonly memcpy: Spread;
  readonly writeFsync: Spread;
  readonly lz4: { readonly by: PageOps['name']; readonly compress: Spread; readonly decompress: Spread }[];
}

function measureLz4(ops: PageOps, input: Buffer, rounds: number): HostSpeeds['lz4'][number] {
  const blocks = input.length / BLOCK_BYTES;
  const packed = Buffer.alloc(input.length * 2);
  const sizes = new Uint32Array(blocks);
  const output = Buffer.alloc(BLOCK_BYTES);
  const compress: number[] = [];
  const decompress: number[] = [];
  for (let round = 0; round < rounds; round++) {
    compress.push(
      input.length /
        seconds(() => {
          for (let i = 0; i < blocks; i++) {
            const source = input.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
            sizes[i] = ops.compress(source, BLOCK_BYTES, packed, i * BLOCK_BYTES * 2, BLOCK_BYTES * 2);
          }
        }),
    );
    decompress.push(
      input.length /
        seconds(() => {
          for (let i = 0; i < blocks; i++) {
            if (!ops.decompress(packed, i * BLOCK_BYTES * 2, sizes[i]!, output, 0, BLOCK_BYTES))
              throw new Error(`the ${ops.name} LZ4 cannot decompress its own output`);
          }
        }),
    );
  }
  return { by: ops.name, compress: spread(compress), decompress: spread(decompress) };
}

async function measureHost(dir: string, rounds: number): Promise<HostSpeeds> {
  const input = mixedBytes(128 * MIB);
  const copy = Buffer.alloc(input.length);
  const memcpy: number[] = [];
  const writeFsync: number[] = [];
  for (let round = 0; round < rounds; round++) {
    memcpy.push(input.length / seconds(() => input.copy(copy)));
    const file = join(dir, 'write-fsync');
    writeFsync.push(
      input.length /
        seconds(() => {
          const fd = openSync(file, 'wx', 0o600);
          for (let at = 0; at < input.length; at += MIB) writeSync(fd, input, at, MIB);
          fsyncSync(fd);
          closeSync(fd);
        }),
    );
    unlinkSync(file);
  }
  const lz4 = [loadNativePageOps(), await loadPortablePageOps()].map((ops) =>
    measureLz4(ops, input.subarray(0, 32 * MIB), rounds),
  );
  return { memcpy: spread(memcpy), writeFsync: spread(writeFsync), lz4 };
}

// --- the command line

const main = join(projectRoot, 'dist/bin/livesnap.js');

/** Runs one verb and returns its output. */
function livesnap(env: NodeJS.ProcessEnv, args: readonly string[], input = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [main, ...args], { env, stdio: ['pipe', 'pipe', 'pipe'] });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on('data', (bytes: Buffer) => out.push(bytes));
    child.stderr.on('data', (bytes: Buffer) => err.push(bytes));
    // A verb may fail before it reads its input. Then its exit status tells.
    child.stdin.on('error', () => {});
    child.on('error', reject);
    child.on('close', (status) => {
      const printed = Buffer.concat(out).toString();
      if (status === 0) resolve(printed);
      else
        reject(new Error(`livesnap ${args.join(' ')} ended with ${status}: ${Buffer.concat(err)}${printed}`));
    });
    child.stdin.end(input);
  });
}

interface Saved {
  readonly id: string;
  readonly pauseMs: number;
  readonly saveMs: number;
  readonly pages: number;
  readonly zeroPages: number;
  readonly newChunks: number;
  readonly reusedChunks: number;
  readonly storedBytes: number;
}

interface SizeResult {
  readonly mixedMib: number;
  readonly saveMs: Spread;
  readonly pauseMs: Spread;
  readonly storedBytes: Spread;
  readonly secondSaveMs: Spread;
  readonly secondPauseMs: Spread;
  readonly secondStoredBytes: Spread;
  readonly restoreMs: Spread;
  /** The whole command `livesnap restore --detach`, with the start of Node. */
  readonly restoreCommandMs: Spread;
  readonly nonZeroBytes: number;
  readonly newBytes: number;
  /** saveMs divided by the time for LZ4 of the new bytes and write + fsync of the stored bytes, on one core. */
  readonly saveRatio: number;
  /** restoreMs divided by the time for LZ4 decompression and memcpy of the non-zero bytes, on one core. */
  readonly restoreRatio: number;
}

async function measureSize(
  dir: string,
  env: NodeJS.ProcessEnv,
  mixedMib: number,
  rounds: number,
  host: HostSpeeds,
): Promise<SizeResult> {
  const store = join(dir, 'store');
  const command = async (name: string, line: string, answer: string): Promise<string> => {
    const printed = await livesnap(
      env,
      ['console', name, '--until', answer, '--timeout', '300'],
      `${line}\n`,
    );
    return printed.match(new RegExp(answer, 'm'))![0];
  };
  const quarter = Math.floor(mixedMib / 4);
  const eighth = Math.floor(mixedMib / 8);
  const kernel = join(projectRoot, 'guest/build/probe.bzImage');
  const memory = `${mixedMib + GUEST_OVERHEAD_MIB}M`;
  await livesnap(env, [
    'start',
    '--kernel',
    kernel,
    '--memory',
    memory,
    '--detach',
    '--name',
    'bench',
    '--json',
  ]);
  try {
    for (const line of [`fill 1 ${quarter}`, `text 2 ${quarter}`, `fill 1 ${eighth}`, `text 2 ${eighth}`]) {
      await command('bench', line, '^OK .*');
    }
    const sum = await command('bench', `sum ${quarter * 3}`, '^SUM [0-9a-f]{16}');

    const first: Saved[] = [];
    const second: Saved[] = [];
    const restoreMs: number[] = [];
    const restoreCommandMs: number[] = [];
    for (let round = 0; round < rounds; round++) {
      rmSync(store, { recursive: true, force: true });
      const save = ['save', 'bench', '--store', store, '--json'];
      first.push(JSON.parse(await livesnap(env, save)) as Saved);
      second.push(JSON.parse(await livesnap(env, save)) as Saved);
      const start = process.hrtime.bigint();
      const restore = [
        'restore',
        first.at(-1)!.id,
        '--store',
        store,
        '--detach',
        '--name',
        'again',
        '--json',
      ];
      const { readyMs } = JSON.parse(await livesnap(env, restore)) as { readyMs: number };
      restoreCommandMs.push(Number(process.hrtime.bigint() - start) / 1e6);
      restoreMs.push(readyMs);
      if (round === 0 && (await command('again', `sum ${quarter * 3}`, '^SUM [0-9a-f]{16}')) !== sum)
        throw new Error('the memory of the restored machine differs from the saved one');
      await livesnap(env, ['stop', 'again']);
    }

    const { pages, zeroPages, newChunks, storedBytes } = first.at(-1)!;
    const nonZeroBytes = (pages - zeroPages) * 4096;
    const newBytes = newChunks * 4096;
    const lz4 = host.lz4[0]!;
    const saveFloorMs = (newBytes / lz4.compress.median + storedBytes / host.writeFsync.median) * 1000;
    const restoreFloorMs = (nonZeroBytes / lz4.decompress.median + nonZeroBytes / host.memcpy.median) * 1000;
    const saveMs = spread(first.map((save) => save.saveMs));
    return {
      mixedMib,
      saveMs,
      pauseMs: spread(first.map((save) => save.pauseMs)),
      storedBytes: spread(first.map((save) => save.storedBytes)),
      secondSaveMs: spread(second.map((save) => save.saveMs)),
      secondPauseMs: spread(second.map((save) => save.pauseMs)),
      secondStoredBytes: spread(second.map((save) => save.storedBytes)),
      restoreMs: spread(restoreMs),
      restoreCommandMs: spread(restoreCommandMs),
      nonZeroBytes,
      newBytes,
      saveRatio: saveMs.median / saveFloorMs,
      restoreRatio: spread(restoreMs).median / restoreFloorMs,
    };
  } finally {
    await livesnap(env, ['stop', 'bench']).catch(() => {});
  }
}

// --- the table

function format(value: number): string {
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** The median, with the extremes if they differ. */
function cell({ median, min, max }: Spread, unit = 1): string {
  const [m, low, high] = [median, min, max].map((value) => format(value / unit));
  return low === high ? m! : `${m} (${low}–${high})`;
}

function printTable(headings: readonly string[], rows: readonly (readonly string[])[]): void {
  const all = [headings, ...rows];
  const widths = headings.map((_, column) => Math.max(...all.map((row) => row[column]!.length)));
  const line = (row: readonly string[]): string =>
    `| ${row.map((text, column) => (column === 0 ? text.padEnd(widths[column]!) : text.padStart(widths[column]!))).join(' | ')} |\n`;
  const rule = `|${widths.map((width, column) => (column === 0 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|\n`;
  process.stdout.write(line(headings) + rule + rows.map(line).join(''));
}

function printReport(machine: Record<string, unknown>, host: HostSpeeds, sizes: readonly SizeResult[]): void {
  process.stdout.write(
    `${machine.cpu}, ${machine.cores} cores, Linux ${machine.kernel}, Node ${machine.node}; medians (smallest–largest) of ${machine.rounds} rounds\n\n`,
  );
  printTable(
    ['This host, one core', 'MiB/s'],
    [
      ['memcpy', cell(host.memcpy, MIB)],
      ['write + fsync', cell(host.writeFsync, MIB)],
      ...host.lz4.flatMap(({ by, compress, decompress }) => [
        [`LZ4 compress, ${by}`, cell(compress, MIB)],
        [`LZ4 decompress, ${by}`, cell(decompress, MIB)],
      ]),
    ],
  );
  process.stdout.write('\n');
  const row = (heading: string, of: (size: SizeResult) => string): string[] => [heading, ...sizes.map(of)];
  printTable(
    ['Mixed RAM', ...sizes.map((size) => `${size.mixedMib} MiB`)],
    [
      row('non-zero, MiB', (size) => format(size.nonZeroBytes / MIB)),
      row('new to the store, MiB', (size) => format(size.newBytes / MIB)),
      row('save, ms', (size) => cell(size.saveMs)),
      row('  pause, ms', (size) => cell(size.pauseMs)),
      row('  stored, MiB', (size) => cell(size.storedBytes, MIB)),
      row('  × (LZ4 + write + fsync)', (size) => size.saveRatio.toFixed(2)),
      row('second save, ms', (size) => cell(size.secondSaveMs)),
      row('  pause, ms', (size) => cell(size.secondPauseMs)),
      row('  stored, KiB', (size) => cell(size.secondStoredBytes, 1024)),
      row('restore until it runs, ms', (size) => cell(size.restoreMs)),
      row('  × (LZ4 + memcpy)', (size) => size.restoreRatio.toFixed(2)),
      row('  the whole command, ms', (size) => cell(size.restoreCommandMs)),
    ],
  );
}

const sizesMib = positiveIntegers(options.sizes, '--sizes');
const rounds = positiveIntegers(options.rounds, '--rounds')[0]!;
const needed = Math.max(...sizesMib) * 3 * MIB;
if (needed > totalmem()) {
  process.stderr.write(`bench: --sizes ${options.sizes} needs ${needed / MIB} MiB of memory\n`);
  process.exit(2);
}
const dir = mkdtempSync(join(options.dir, 'bench-'));
const env = { ...process.env, XDG_RUNTIME_DIR: join(dir, 'run') };
mkdirSync(env.XDG_RUNTIME_DIR, { mode: 0o700 });
process.on('exit', (status) => {
  // Machines are processes of their own: an interrupted run must stop them.
  if (status !== 0)
    for (const name of ['bench', 'again']) spawnSync(process.execPath, [main, 'stop', name], { env });
  rmSync(dir, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1));

const machine = {
  cpu: cpus()[0]!.model.trim(),
  cores: cpus().length,
  kernel: release(),
  node: process.versions.node,
  rounds,
};
const host = await measureHost(dir, rounds);
const results: SizeResult[] = [];
for (const mixedMib of sizesMib) {
  if (process.stderr.isTTY) process.stderr.write(`bench: ${mixedMib} MiB …\n`);
  results.push(await measureSize(dir, env, mixedMib, rounds, host));
}
if (options.json) process.stdout.write(`${JSON.stringify({ machine, host, sizes: results }, null, 2)}\n`);
else printReport(machine, host, results);
