/** Repair of stores with damage in many places: its memory and its open files hardly grow with the damage. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readdirSync, readSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pageOps } from '../../src/native/pages.js';
import { packFile } from '../../src/store/disk/layout.js';
import { DEFAULT_DIGEST, DIGEST_BYTES, digestsOf } from '../../src/store/pack/digest.js';
import { PACK_CHUNKS } from '../../src/store/pack/pack-format.js';
import { PackWriter } from '../../src/store/pack/pack-writer.js';
import { BlockList } from '../../src/store/snapshot/block-list.js';
import { writeSnapshotFile } from '../../src/store/snapshot/snapshot-file.js';
import { Store } from '../../src/store/store.js';
import type { RepairResult } from '../../src/store/types.js';
import { dropScratch, load, newStore, noise, save } from './scratch.js';

const child = fileURLToPath(new URL('./verbs-child.js', import.meta.url));

interface Repaired {
  readonly value?: RepairResult;
  readonly message?: string;
  readonly maxRssKiB: number;
}

/** Repairs in a process with limits for its heap and its open files. */
function repairWithin(dir: string, { heapMiB, files }: { heapMiB: number; files: number }): Repaired {
  const node = [`--max-old-space-size=${heapMiB}`, child, dir, 'repair', String(files)];
  return JSON.parse(execFileSync(process.execPath, node, { encoding: 'utf8' }));
}

function flip(path: string, offset: number): void {
  const fd = openSync(path, 'r+');
  try {
    const byte = Buffer.alloc(1);
    readSync(fd, byte, 0, 1, offset);
    byte[0]! ^= 1;
    writeSync(fd, byte, 0, 1, offset);
  } finally {
    closeSync(fd);
  }
}

describe('repair of a store with much damage', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('keeps few files open and heals damaged packs from each other', async function () {
    const { store, dir } = newStore(this);
    const contents = (i: number): { ram: Buffer } => ({ ram: noise(i, 20) });
    for (let i = 0; i < 70; i++) await save(store, contents(i), { tag: `t${i}` });
    store.close();
    for (const name of readdirSync(join(dir, 'packs'))) flip(join(dir, 'packs', name), 32 + 500);
    const { value, message } = repairWithin(dir, { heapMiB: 512, files: 64 });
    assert.equal(value?.lost.length, 70, message);
    const again = Store.open(dir, { write: true });
    try {
      // The lost pages are stored again, in packs that are then damaged elsewhere.
      for (let i = 0; i < 70; i++) {
        const ram = Buffer.concat([contents(i).ram.subarray(0, 16 * 4096), noise(1000 + i, 20)]);
        await save(again, { ram });
      }
    } finally {
      again.close();
    }
    const newest = readdirSync(join(dir, 'packs')).filter((name) => name.endsWith('-0.pack'));
    assert.equal(newest.length, 70);
    for (const name of newest) flip(join(dir, 'packs', name), 32 + 48 + 65536 + 500);
    const healed = repairWithin(dir, { heapMiB: 512, files: 64 });
    assert.equal(healed.value?.healedChunks, 70 * 16, healed.message);
    const whole = Store.open(dir, { write: false });
    try {
      for (const i of [0, 69]) assert.deepEqual(await load(whole, `t${i}`), contents(i));
    } finally {
      whole.close();
    }
  });

  it('keeps little of each damaged pack in memory', async function () {
    this.timeout(300_000);
    const { store, dir } = newStore(this);
    store.close();
    const packs = 12;
    const digests = Buffer.alloc(PACK_CHUNKS * DIGEST_BYTES);
    for (let number = 1; number <= packs; number++) writeFullPack(dir, number, digests);
    for (let number = 1; number <= packs; number++) flip(join(dir, packFile(number, 0)), 32 + 100);
    const { value, message, maxRssKiB } = repairWithin(dir, { heapMiB: 64, files: 1024 });
    assert.equal(value?.actions.length, packs + 1, message);
    console.log(`        ${packs} damaged packs of ${PACK_CHUNKS} chunks: ${maxRssKiB >> 10} MiB`);
    assert.ok(maxRssKiB < 400 << 10);
  });

  it('does not keep the state of snapshots', async function () {
    this.timeout(300_000);
    const { store, dir } = newStore(this);
    store.close();
    const state = Buffer.alloc(32 << 20, 7);
    for (let i = 0; i < 16; i++) {
      const description = {
        id: i.toString(16).padStart(32, '0'),
        kind: 'machine' as const,
        vm: null,
        parent: null,
        createdAt: new Date(0).toISOString(),
        memoryBytes: 0,
        diskBytes: 0,
        packBytes: 0,
        regions: [],
        machine: {},
        host: {},
      };
      closeSync(writeSnapshotFile(dir, description, new BlockList(), state).fd);
    }
    const { value, message, maxRssKiB } = repairWithin(dir, { heapMiB: 512, files: 1024 });
    assert.equal(value?.actions.length, 17, message);
    console.log(`        16 snapshots with 32 MiB of state: ${maxRssKiB >> 10} MiB`);
    assert.ok(maxRssKiB < 400 << 10);
    rmSync(dir, { recursive: true });
  });
});

/** Writes a pack with the maximum of chunks, which compress well and are the same in every pack. */
function writeFullPack(dir: string, number: number, digests: Buffer): void {
  const writer = new PackWriter(pageOps, dir, number, 0);
  const page = Buffer.alloc(4096);
  const fingerprint = new Uint8Array(8);
  for (let chunk = 0; chunk < PACK_CHUNKS; chunk++) {
    page.writeUInt32LE(chunk + 1, 0);
    pageOps.hashPages(page, 1, fingerprint);
    const digest = digests.subarray(chunk * DIGEST_BYTES, (chunk + 1) * DIGEST_BYTES);
    if (number === 1) digestsOf(pageOps, DEFAULT_DIGEST, page, 1).copy(digest);
    writer.appendNumbered(page, 0, fingerprint, false, chunk, digest);
  }
  writer.seal();
  writer.close();
}
