import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import {
  closeIoEngine,
  createIoEngine,
  type IoEngine,
  ioEngineFd,
  MAX_RANGES,
  submitAllocate,
  submitCopy,
  submitFindData,
  submitPunch,
  submitRead,
  submitStoreCopy,
  submitStoreRead,
  submitSync,
  submitWrite,
  submitZeroMemory,
  takeCompletions,
  waitForCompletion,
} from '../../../src/native/block-io.js';
import {
  closeMemory,
  createMemory,
  type MemoryHandle,
  readMemory,
  writeMemory,
} from '../../../src/native/memory.js';

const { EBADF, EFBIG, EINVAL, ENOSPC } = constants.errno;
const NO_FD = 1 << 30;

const pattern = (length: number, seed = 1): Buffer =>
  Buffer.from(Uint8Array.from({ length }, (_, i) => ((i * 31 + seed * 17) % 255) + 1));

const range = (...numbers: number[]): Float64Array => new Float64Array(numbers);

/** Waits for `count` completions; results by id. */
function completions(engine: IoEngine, count: number): Map<number, number> {
  const results = new Map<number, number>();
  const pairs = new Int32Array(2 * 64);
  while (results.size < count) {
    assert.ok(waitForCompletion(engine, -1));
    const taken = takeCompletions(engine, pairs);
    for (let i = 0; i < taken; i++) {
      assert.ok(!results.has(pairs[2 * i]!), 'an operation completed twice');
      results.set(pairs[2 * i]!, pairs[2 * i + 1]!);
    }
  }
  return results;
}

/** Runs one operation and returns its result. */
function result(engine: IoEngine, submit: (id: number) => boolean): number {
  assert.ok(submit(42));
  const results = completions(engine, 1);
  assert.ok(results.has(42));
  return results.get(42)!;
}

/** Whether an eventfd is readable, without reading it (proc_pid_fdinfo(5)). */
function isReadable(fd: number): boolean {
  const count = /^eventfd-count: +([0-9a-f]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1];
  return Number.parseInt(count!, 16) > 0;
}

describe('the I/O engine', () => {
  let dir: string;
  let engine: IoEngine;
  let memory: MemoryHandle;
  let fd: number;

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-test-'));
    engine = createIoEngine(2);
    memory = createMemory(1 << 20);
    fd = openSync(join(dir, 'file'), 'w+');
  });
  afterEach(() => {
    closeIoEngine(engine);
    closeMemory(memory);
    closeSync(fd);
    rmSync(dir, { recursive: true });
  });

  const bytesOf = (offset: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length);
    readMemory(memory, offset, bytes);
    return bytes;
  };
  const fileBytes = (offset: number, length: number, from = fd): Buffer => {
    const bytes = Buffer.alloc(length);
    assert.equal(readSync(from, bytes, 0, length, offset), length);
    return bytes;
  };

  describe('read', () => {
    it('scatters the bytes of a file over ranges, in order, and changes nothing beside them', () => {
      const bytes = pattern(10_000);
      writeSync(fd, bytes);
      const ranges = range(memory, 8192, 3000, memory, 100, 0, memory, 1, 4000);
      assert.equal(
        result(engine, (id) => submitRead(engine, id, fd, 500, ranges)),
        0,
      );
      assert.deepEqual(bytesOf(8192, 3000), bytes.subarray(500, 3500));
      assert.deepEqual(bytesOf(1, 4000), bytes.subarray(3500, 7500));
      assert.deepEqual(bytesOf(8191, 1), Buffer.alloc(1));
      assert.deepEqual(bytesOf(11_192, 100), Buffer.alloc(100));
    });

    it('gives zeros after the end of the file, in place of what was in memory', () => {
      writeSync(fd, pattern(1000));
      writeMemory(memory, 0, pattern(8192, 2));
      const ranges = range(memory, 0, 600, memory, 600, 2000, memory, 4096, 96);
      assert.equal(
        result(engine, (id) => submitRead(engine, id, fd, 0, ranges)),
        0,
      );
      assert.deepEqual(bytesOf(0, 2600), Buffer.concat([pattern(1000), Buffer.alloc(1600)]));
      assert.deepEqual(bytesOf(4096, 96), Buffer.alloc(96));
      assert.deepEqual(bytesOf(4192, 10), pattern(8192, 2).subarray(4192, 4202));
      assert.equal(
        result(engine, (id) => submitRead(engine, id, fd, 2 ** 40, range(memory, 0, 512))),
        0,
      );
      assert.deepEqual(bytesOf(0, 512), Buffer.alloc(512));
    });

    it('takes as many ranges as the kernel does', () => {
      const bytes = pattern(MAX_RANGES * 2);
      writeSync(fd, bytes);
      const ranges = new Float64Array(3 * MAX_RANGES);
      for (let i = 0; i < MAX_RANGES; i++) ranges.set([memory, 16 * i, 2], 3 * i);
      assert.equal(
        result(engine, (id) => submitRead(engine, id, fd, 0, ranges)),
        0,
      );
      for (let i = 0; i < MAX_RANGES; i++)
        assert.deepEqual(bytesOf(16 * i, 2), bytes.subarray(2 * i, 2 * i + 2));
      assert.throws(() => submitRead(engine, 1, fd, 0, new Float64Array(3 * MAX_RANGES + 3)), TypeError);
    });
  });

  it('writes the bytes of ranges, in order', () => {
    writeMemory(memory, 0, pattern(10_000));
    const ranges = range(memory, 5000, 700, memory, 10, 3000);
    assert.equal(
      result(engine, (id) => submitWrite(engine, id, fd, 123, ranges)),
      0,
    );
    const expected = Buffer.concat([
      pattern(10_000).subarray(5000, 5700),
      pattern(10_000).subarray(10, 3010),
    ]);
    assert.equal(fstatSync(fd).size, 123 + 3700);
    assert.deepEqual(fileBytes(123, 3700), expected);
  });

  it('sets ranges of memory to zero, and nothing beside them', () => {
    writeMemory(memory, 0, pattern(10_000));
    const ranges = range(memory, 1, 4999, memory, 6000, 10);
    assert.equal(
      result(engine, (id) => submitZeroMemory(engine, id, ranges)),
      0,
    );
    const expected = pattern(10_000).fill(0, 1, 5000).fill(0, 6000, 6010);
    assert.deepEqual(bytesOf(0, 10_000), expected);
  });

  it('copies between files, with zeros after the end of the first', () => {
    const bytes = pattern(700_000);
    writeSync(fd, bytes);
    const to = openSync(join(dir, 'to'), 'w+');
    const copy = (offset: number, toOffset: number, length: number) =>
      result(engine, (id) => submitCopy(engine, id, { fd, offset }, { fd: to, offset: toOffset }, length));
    writeSync(to, pattern(1_000_000, 2));
    assert.equal(copy(1000, 5000, 699_500), 0);
    const expected = pattern(1_000_000, 2);
    bytes.copy(expected, 5000, 1000);
    expected.fill(0, 5000 + 699_000, 5000 + 699_500);
    assert.deepEqual(fileBytes(0, 1_000_000, to), expected);
    closeSync(to);
  });

  it('syncs, allocates without changing size or data, and punches holes', () => {
    writeSync(fd, pattern(8192));
    assert.equal(
      result(engine, (id) => submitSync(engine, id, fd)),
      0,
    );
    const blocksBefore = fstatSync(fd).blocks;
    assert.equal(
      result(engine, (id) => submitAllocate(engine, id, fd, 4096, 1 << 20)),
      0,
    );
    assert.ok(fstatSync(fd).blocks > blocksBefore);
    assert.equal(fstatSync(fd).size, 8192);
    assert.deepEqual(fileBytes(0, 8192), pattern(8192));
    ftruncateSync(fd, 1 << 20);
    assert.equal(
      result(engine, (id) => submitPunch(engine, id, fd, 4096, 1 << 20)),
      0,
    );
    assert.equal(fstatSync(fd).size, 1 << 20);
    assert.deepEqual(fileBytes(0, 8192), pattern(8192).fill(0, 4096));
  });

  it('reports errors of the kernel as the result of the operation', () => {
    const full = openSync('/dev/full', 'r+');
    const readOnly = openSync(join(dir, 'file'), 'r');
    const one = range(memory, 0, 4096);
    const results: Record<string, [number, (id: number) => boolean]> = {
      'no space': [ENOSPC, (id) => submitWrite(engine, id, full, 0, one)],
      'no space for a copy': [
        ENOSPC,
        (id) => submitCopy(engine, id, { fd, offset: 0 }, { fd: full, offset: 0 }, 4096),
      ],
      'not open': [EBADF, (id) => submitRead(engine, id, NO_FD, 0, one)],
      'not open for writing': [EBADF, (id) => submitWrite(engine, id, readOnly, 0, one)],
      'sync of nothing': [EBADF, (id) => submitSync(engine, id, NO_FD)],
      'allocation of nothing': [EBADF, (id) => submitAllocate(engine, id, NO_FD, 0, 4096)],
      'hole in nothing': [EBADF, (id) => submitPunch(engine, id, NO_FD, 0, 4096)],
      'copy from nothing': [
        EBADF,
        (id) => submitCopy(engine, id, { fd: NO_FD, offset: 0 }, { fd, offset: 0 }, 4096),
      ],
      'sync of what has nothing to sync': [EINVAL, (id) => submitSync(engine, id, full)],
    };
    for (const [what, [errno, submit]] of Object.entries(results))
      assert.equal(result(engine, submit), errno, what);
    closeSync(full);
    closeSync(readOnly);
  });

  it('refuses ranges that are not within an open memory', () => {
    const size = 1 << 20;
    const submits = [
      (ranges: Float64Array) => submitRead(engine, 1, fd, 0, ranges),
      (ranges: Float64Array) => submitWrite(engine, 1, fd, 0, ranges),
      (ranges: Float64Array) => submitZeroMemory(engine, 1, ranges),
    ];
    const bad = [
      [memory, 0, size + 1],
      [memory, size, 1],
      [memory, size + 1, 0],
      [memory, -1, 1],
      [memory, 0, -1],
      [memory, 0.5, 1],
      [memory, 0, Number.NaN],
      [memory, 2 ** 53, 1],
      [memory, 1, Number.POSITIVE_INFINITY],
      [memory, 0, 512, memory, size - 511, 512],
      [memory, 0],
    ];
    for (const submit of submits) {
      for (const numbers of bad) assert.throws(() => submit(range(...numbers)), TypeError, String(numbers));
      assert.throws(() => submit(range(0xffff_ffff, 0, 1)), { code: 'MACHINE_GONE' });
    }
    assert.throws(() => submitRead(engine, 1, -1, 0, range(memory, 0, 1)), TypeError);
    assert.throws(() => submitRead(engine, 1, fd, -1, range(memory, 0, 1)), TypeError);
    assert.throws(() => submitStoreRead(engine, 1, 0xffff_ffff, 0, range(memory, 0, 1)), {
      code: 'MACHINE_GONE',
    });
    assert.throws(
      () => submitStoreCopy(engine, 1, { reader: 0xffff_ffff, offset: 0 }, { fd, offset: 0 }, 1),
      { code: 'MACHINE_GONE' },
    );
    assert.equal(takeCompletions(engine, new Int32Array(64)), 0);
  });

  it('keeps a memory for an operation although its handle is closed', () => {
    const other = createMemory(4 << 20);
    writeMemory(other, 0, pattern(4 << 20));
    for (let id = 0; id < 8; id++)
      assert.ok(submitWrite(engine, id, fd, id * (4 << 20), range(other, 0, 4 << 20)));
    closeMemory(other);
    for (const errno of completions(engine, 8).values()) assert.equal(errno, 0);
    assert.deepEqual(fileBytes(7 * (4 << 20), 4 << 20), pattern(4 << 20));
  });

  it('refuses operations when it is full, until completions are taken', () => {
    const small = createIoEngine(1, 2);
    const submit = (id: number): boolean => submitRead(small, id, fd, 0, range(memory, 0, 512));
    assert.deepEqual([submit(1), submit(2), submit(3)], [true, true, false]);
    while (!waitForCompletion(small, -1));
    const pair = new Int32Array(2);
    assert.equal(takeCompletions(small, pair), 1);
    assert.deepEqual([submit(4), submit(5)], [true, false]);
    assert.deepEqual([...completions(small, 2).values()], [0, 0]);
    closeIoEngine(small);
  });

  it('has a descriptor that is readable exactly while completions wait', () => {
    const eventFd = ioEngineFd(engine);
    assert.equal(isReadable(eventFd), false);
    for (const id of [-1, 2 ** 31 - 1]) assert.ok(submitSync(engine, id, fd));
    const pairs = new Int32Array(2);
    const ids = new Set<number>();
    for (let left = 2; left > 0; left--) {
      assert.ok(waitForCompletion(engine, -1));
      assert.equal(isReadable(eventFd), true);
      assert.equal(takeCompletions(engine, pairs), 1);
      ids.add(pairs[0]!);
    }
    assert.deepEqual(ids, new Set([-1, 2 ** 31 - 1]));
    assert.equal(isReadable(eventFd), false);
    assert.equal(takeCompletions(engine, pairs), 0);
    assert.equal(waitForCompletion(engine, 0), false);
  });

  it('is used by several threads, and completes everything once', async () => {
    const shared = createIoEngine(4, 4096);
    const script = `
      const { parentPort, workerData: { file, engine, memory, fd, base } } = require('node:worker_threads');
      void import(file).then(({ submitWrite }) => {
        for (let i = 0; i < 1000; i++) {
          const at = base + i * 64;
          if (!submitWrite(engine, base + i, fd, at, new Float64Array([memory, at, 64]))) throw new Error('full');
        }
        parentPort.postMessage('done');
      });`;
    writeMemory(memory, 0, pattern(256_000));
    const file = new URL('../../../src/native/block-io.js', import.meta.url).href;
    const workers = [0, 64_000, 128_000, 192_000].map(
      (base) => new Worker(script, { eval: true, workerData: { file, engine: shared, memory, fd, base } }),
    );
    await Promise.all(
      workers.map((worker) => new Promise((ended, failed) => worker.on('exit', ended).on('error', failed))),
    );
    const results = completions(shared, 4000);
    assert.ok([...results.values()].every((errno) => errno === 0));
    assert.deepEqual(fileBytes(0, 256_000), pattern(256_000));
    closeIoEngine(shared);
  });

  it('is given up when an operation hangs, and the process ends', function () {
    try {
      closeSync(openSync('/dev/kmsg', 'r'));
    } catch (error) {
      console.warn(`SKIPPED: no file here that hangs: ${(error as Error).message}`);
      this.skip();
    }
    const child = fileURLToPath(new URL('./block-io-child.js', import.meta.url));
    const ended = spawnSync(process.execPath, [child, 'hang', join(dir, 'file')], {
      encoding: 'utf8',
      timeout: 60_000,
    });
    assert.deepEqual([ended.status, ended.signal], [7, null], ended.stderr);
  });

  it('finds the blocks of a file that may hold data', () => {
    const bytes = 1000 * 4096 + 1;
    ftruncateSync(fd, bytes);
    // A file system may keep holes in larger units than a block.
    for (const block of [0, 7, 256, 257, 999, 1000]) writeSync(fd, pattern(1), 0, 1, block * 4096);
    const find = (file: number, length: number): number[] => {
      writeMemory(memory, 0, new Uint8Array(512));
      assert.equal(
        result(engine, (id) => submitFindData(engine, id, file, length, range(memory, 0, 256))),
        0,
      );
      const bits = bytesOf(0, 512);
      return Array.from({ length: 4096 }, (_, i) => i).filter((i) => (bits[i >> 3]! & (1 << (i & 7))) !== 0);
    };
    const found = find(fd, bytes);
    for (const block of [0, 7, 256, 257, 999, 1000]) assert.ok(found.includes(block), `block ${block}`);
    assert.ok(found.length < 100, 'holes are found');
    assert.ok(found.every((block) => block <= 1000));
    assert.ok(find(fd, 999 * 4096).every((block) => block < 999));
    const endless = openSync('/dev/zero', 'r');
    assert.equal(find(endless, 100 * 4096 - 1).length, 100, 'all, where nothing is known');
    closeSync(endless);
    assert.throws(() => submitFindData(engine, 1, fd, 3000 * 4096, range(memory, 0, 256)), TypeError);
  });

  it('is gone after it was closed', () => {
    const other = createIoEngine();
    assert.ok(submitSync(other, 1, fd));
    closeIoEngine(other);
    closeIoEngine(other);
    assert.throws(() => submitSync(other, 1, fd), { code: 'MACHINE_GONE' });
    assert.throws(() => takeCompletions(other, new Int32Array(2)), { code: 'MACHINE_GONE' });
    assert.throws(() => createIoEngine(0), TypeError);
    assert.throws(() => createIoEngine(1, 0), TypeError);
  });

  describe('in another process', function () {
    this.timeout(60_000);
    const child = (mode: string, prefix: string[] = []): { status: number | null; signal: string | null } => {
      const script = fileURLToPath(new URL('./block-io-child.js', import.meta.url));
      ftruncateSync(fd, 16 << 20);
      const [command, ...args] = [...prefix, process.execPath, script, mode, join(dir, 'file')];
      return spawnSync(command!, args, { stdio: ['ignore', 'inherit', 'inherit'], timeout: 50_000 });
    };

    it('lets the process exit with operations in flight', () => {
      const { status, signal } = child('exit');
      assert.deepEqual({ status, signal }, { status: 7, signal: null });
    });

    it('is closed with operations in flight', () => {
      const { status, signal } = child('close');
      assert.deepEqual({ status, signal }, { status: 0, signal: null });
    });

    it('survives the end of the Worker that submitted, and that alone had loaded the addon', () => {
      const { status, signal } = child('worker');
      assert.deepEqual({ status, signal }, { status: 7, signal: null });
    });

    it('reports a file at the limit of its size, and is not killed for it', () => {
      const { status, signal } = child('size-limit', ['sh', '-c', 'ulimit -f 8; exec "$@"', 'sh']);
      assert.deepEqual({ status, signal }, { status: EFBIG, signal: null });
    });
  });
});
