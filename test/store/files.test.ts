import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { dropScratch, mountSmall, newStore, noise, save, seeded, textPages } from './scratch.js';

describe('put and get', () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const size of [0, 1, 4095, 4096, 4097, 1 << 20, (1 << 20) + 1, 3 * (1 << 20) - 4095])
    it(`keep a file of ${size} bytes`, async function () {
      const { store, dir } = newStore(this);
      const content = noise(size, Math.ceil(size / 4096)).subarray(0, size);
      const input = join(dirname(dir), 'input.bin');
      writeFileSync(input, content);
      const result = await store.put(input, { tag: 'f', name: null });
      assert.equal(result.pages, Math.ceil(size / 4096));
      const [summary] = store.list();
      assert.deepEqual([summary!.kind, summary!.vm, summary!.memoryBytes], ['file', 'input.bin', size]);
      const output = join(dirname(dir), 'output.bin');
      assert.deepEqual(await store.get('f', output), { bytes: size });
      assert.deepEqual(readFileSync(output), content);
    });

  it('write to a stream, front to back, holes as zeros, and stop before anything that is damaged', async function () {
    const { store, dir } = newStore(this);
    const content = Buffer.concat([
      noise(1, 700),
      Buffer.alloc(3000 * 4096),
      noise(2, 30),
      Buffer.from('an end'),
    ]);
    await store.put(Readable.from([content]), { tag: 'f', name: 'f' });
    const taken = async (): Promise<Buffer> => {
      const stream = new PassThrough();
      const parts: Buffer[] = [];
      stream.on('data', (part) => parts.push(part));
      try {
        await store.get('f', stream);
      } finally {
        stream.end();
      }
      return Buffer.concat(parts);
    };
    assert.deepEqual(await taken(), content);
    const pack = join(dir, 'packs', readdirSync(join(dir, 'packs'))[0]!);
    const bytes = readFileSync(pack);
    bytes[3_000_000 - 300_000]! ^= 1; // in the second block
    writeFileSync(pack, bytes);
    await assert.rejects(taken(), { code: 'DAMAGED' });
  });

  it('share chunks with the RAM of a machine that has the file cached', async function () {
    const { store } = newStore(this);
    const image = Buffer.concat([noise(1, 300), textPages(2, 300), Buffer.alloc(100 * 4096)]);
    // The guest's page cache has the file's pages in any order, at any page of RAM, among others.
    const next = seeded(5);
    const order = Array.from({ length: 600 }, (_, i) => i).sort(() => (next() & 1) - 0.5);
    const cached = order.map((page) => image.subarray(page * 4096, (page + 1) * 4096));
    await save(store, { 'ram@0x0': Buffer.concat([noise(9, 77), ...cached, Buffer.alloc(4096 * 50)]) });
    const { newChunks, reusedChunks } = await store.put(Readable.from([image]), { tag: null, name: 'disk' });
    assert.deepEqual([newChunks, reusedChunks], [0, 600]);
  });

  it('take a stream of unknown length, in pieces of any size', async function () {
    const { store, dir } = newStore(this);
    const content = Buffer.concat([noise(1, 700), textPages(2, 300), Buffer.from('and an end')]);
    for (const piece of [1000, 4096, 65536, 3 << 20]) {
      const pieces: Buffer[] = [];
      for (let at = 0; at < content.length; at += piece) pieces.push(content.subarray(at, at + piece));
      const result = await store.put(Readable.from(pieces), { tag: null, name: 'stdin' });
      await store.get(result.id, join(dirname(dir), 'out'));
      assert.deepEqual(readFileSync(join(dirname(dir), 'out')), content);
    }
    assert.equal(store.stats().chunks, 1001);
    await assert.rejects(
      store.put(
        Readable.from(
          (function* () {
            yield noise(1, 300);
            throw new Error('the pipe broke');
          })(),
        ),
        { tag: null, name: null },
      ),
      /the pipe broke/,
    );
    assert.equal(store.list().length, 4);
  });

  it('replace a file whole or not at all, with holes where it is zero', async function () {
    const { store, dir } = newStore(this);
    const here = dirname(dir);
    const sparse = join(here, 'sparse');
    writeFileSync(sparse, noise(1, 10));
    truncateSync(sparse, 64 << 20);
    await store.put(sparse, { tag: 's', name: null });
    const output = join(here, 'output');
    writeFileSync(output, 'what was there');
    await store.get('s', output);
    assert.deepEqual(readFileSync(output), readFileSync(sparse));
    assert.ok(statSync(output).blocks * 512 < 1 << 20);
    assert.equal(statSync(output).mode & 0o777, 0o600);

    // Damage half-way: what was there stays, and no temporary file.
    const pack = join(dir, 'packs', readdirSync(join(dir, 'packs'))[0]!);
    const bytes = readFileSync(pack);
    bytes[1000]! ^= 1;
    writeFileSync(pack, bytes);
    writeFileSync(output, 'what was there');
    const before = readdirSync(here).sort();
    await assert.rejects(store.get('s', output), { code: 'DAMAGED' });
    assert.equal(readFileSync(output, 'utf8'), 'what was there');
    assert.deepEqual(readdirSync(here).sort(), before);
  });

  it('write to what a name stands for, and put nothing in its place', async function () {
    const { store, dir } = newStore(this);
    const here = dirname(dir);
    const content = Buffer.concat([noise(1, 1500), Buffer.alloc(3_000_000), Buffer.from('end')]);
    writeFileSync(join(here, 'in'), content);
    await store.put(join(here, 'in'), { tag: 'f', name: null });

    // Links: the file that they name is replaced, or made, and they stay.
    mkdirSync(join(here, 'far'));
    const file = join(here, 'far', 'file');
    for (const [link, to] of [
      ['link', 'far/file'],
      ['hop', 'link'],
    ] as const)
      symlinkSync(to, join(here, link));
    for (const link of ['link', 'hop']) {
      rmSync(file, { force: true });
      for (const before of [null, 'what was there']) {
        if (before !== null) writeFileSync(file, before);
        await store.get('f', join(here, link));
        assert.ok(lstatSync(join(here, link)).isSymbolicLink());
        assert.deepEqual(readFileSync(file), content);
      }
    }
    assert.deepEqual(readdirSync(join(here, 'far')), ['file']);
    symlinkSync('nowhere/file', join(here, 'astray'));
    await assert.rejects(store.get('f', join(here, 'astray')), { code: 'NO_SUCH_FILE' });
    symlinkSync('loop', join(here, 'loop'));
    await assert.rejects(store.get('f', join(here, 'loop')), { code: 'SYSTEM' });

    const fifo = join(here, 'fifo');
    execFileSync('mkfifo', [fifo]);
    const cat = spawn('cat', [fifo], { stdio: ['ignore', 'pipe', 'inherit'] });
    const read = buffer(cat.stdout);
    assert.deepEqual(await store.get('f', fifo), { bytes: content.length });
    assert.ok((await read).equals(content));
    assert.ok(lstatSync(fifo).isFIFO());

    const socket = createServer();
    await new Promise<void>((resolve) => socket.listen(join(here, 'socket'), resolve));
    await assert.rejects(store.get('f', join(here, 'socket')), { code: 'USAGE' });
    await new Promise((resolve) => socket.close(resolve));

    if (process.getuid?.() !== 0) return;
    execFileSync('mknod', [join(here, 'null'), 'c', '1', '3']);
    execFileSync('mknod', [join(here, 'full'), 'c', '1', '7']);
    // A major number that no driver has: opening it would fail, and says nothing of any disk of this machine.
    execFileSync('mknod', [join(here, 'disk'), 'b', '240', '0']);
    await store.get('f', join(here, 'null'));
    await assert.rejects(store.get('f', join(here, 'full')), { code: 'NO_SPACE' });
    await assert.rejects(store.get('f', join(here, 'disk')), { code: 'USAGE', message: /block device/ });
    for (const name of ['null', 'full']) assert.ok(lstatSync(join(here, name)).isCharacterDevice());
    assert.ok(lstatSync(join(here, 'disk')).isBlockDevice());
  });

  it('say what they cannot do', async function () {
    const { store, dir } = newStore(this);
    const here = dirname(dir);
    await assert.rejects(store.put(join(here, 'none'), { tag: null, name: null }), { code: 'NO_SUCH_FILE' });
    await assert.rejects(store.put(here, { tag: null, name: null }), { code: 'NO_SUCH_FILE' });
    await assert.rejects(store.put(join(dir, 'lock'), { tag: 'a/b', name: null }), { code: 'USAGE' });
    const { id } = await save(store, { 'ram@0x0': noise(1, 1) });
    await assert.rejects(store.get(id, join(here, 'out')), { code: 'USAGE' });
    await assert.rejects(store.get('nothing', join(here, 'out')), { code: 'NO_SUCH_SNAPSHOT' });
    await store.put(join(dir, 'reserve'), { tag: 'r', name: null });
    await assert.rejects(store.get('r', here), { code: 'USAGE' });
    await assert.rejects(store.get('r', join(here, 'no', 'such', 'directory')), { code: 'NO_SUCH_FILE' });
    assert.deepEqual(readdirSync(here), ['store']);
  });

  it('leave nothing when the target’s disk is full', async function () {
    const { store, dir } = newStore(this);
    const here = dirname(dir);
    writeFileSync(join(here, 'in'), noise(1, 700));
    await store.put(join(here, 'in'), { tag: 'f', name: null });
    const small = join(here, 'small');
    mkdirSync(small);
    mountSmall(this, small, 1 << 20);
    await assert.rejects(store.get('f', join(small, 'out')), { code: 'NO_SPACE' });
    assert.deepEqual(readdirSync(small), []);
  });
});
