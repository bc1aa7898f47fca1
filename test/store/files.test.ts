import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { PassThrough, Readable, Writable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { lockBytes, lockImage } from '../../src/native/locks.js';
import {
  dropScratch,
  loopDevice,
  mountReadOnly,
  mountSmall,
  newStore,
  noise,
  onDrop,
  save,
  scratchDir,
  seeded,
  textPages,
} from './scratch.js';

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
      const result = await store.put(input, { tags: ['f'], name: null });
      assert.equal(result.pages, Math.ceil(size / 4096));
      const [summary] = store.list();
      assert.deepEqual([summary!.kind, summary!.vm, summary!.memoryBytes], ['file', 'input.bin', size]);
      const output = join(dirname(dir), 'output.bin');
      assert.deepEqual(await store.get('f', output), { bytes: size });
      assert.deepEqual(readFileSync(output), content);
    });

  it('write to a stream front to back, with holes as zeros, and stop before damage', async function () {
    const { store, dir } = newStore(this);
    const content = Buffer.concat([
      noise(1, 700),
      Buffer.alloc(3000 * 4096),
      noise(2, 30),
      Buffer.from('an end'),
    ]);
    await store.put(Readable.from([content]), { tags: ['f'], name: 'f' });
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
    // A guest's page cache has the pages of a file in any order, among other pages.
    const next = seeded(5);
    const order = Array.from({ length: 600 }, (_, i) => i).sort(() => (next() & 1) - 0.5);
    const cached = order.map((page) => image.subarray(page * 4096, (page + 1) * 4096));
    await save(store, { 'ram@0x0': Buffer.concat([noise(9, 77), ...cached, Buffer.alloc(4096 * 50)]) });
    const { newChunks, reusedChunks } = await store.put(Readable.from([image]), { tags: [], name: 'disk' });
    assert.deepEqual([newChunks, reusedChunks], [0, 600]);
  });

  it('read a stream of unknown length, in pieces of any size', async function () {
    const { store, dir } = newStore(this);
    const content = Buffer.concat([noise(1, 700), textPages(2, 300), Buffer.from('and an end')]);
    for (const piece of [1000, 4096, 65536, 3 << 20]) {
      const pieces: Buffer[] = [];
      for (let at = 0; at < content.length; at += piece) pieces.push(content.subarray(at, at + piece));
      const result = await store.put(Readable.from(pieces), { tags: [], name: 'stdin' });
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
        { tags: [], name: null },
      ),
      /the pipe broke/,
    );
    assert.equal(store.list().length, 4);
  });

  it('replace a file completely or not at all, with holes for zeros', async function () {
    const { store, dir } = newStore(this);
    const here = dirname(dir);
    const sparse = join(here, 'sparse');
    writeFileSync(sparse, noise(1, 10));
    truncateSync(sparse, 64 << 20);
    await store.put(sparse, { tags: ['s'], name: null });
    const output = join(here, 'output');
    writeFileSync(output, 'what was there');
    await store.get('s', output);
    assert.deepEqual(readFileSync(output), readFileSync(sparse));
    assert.ok(statSync(output).blocks * 512 < 1 << 20);

    // Damage half-way: the old file stays, and no temporary file is left.
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

  it('write through links, and into FIFOs and devices without replacing them', async function () {
    const { store, dir } = newStore(this);
    const here = dirname(dir);
    const content = Buffer.concat([noise(1, 1500), Buffer.alloc(3_000_000), Buffer.from('end')]);
    writeFileSync(join(here, 'in'), content);
    await store.put(join(here, 'in'), { tags: ['f'], name: null });

    // Links stay. The file that they lead to is replaced or created.
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
    // No driver has this major number, so the test depends on no disk of this machine.
    execFileSync('mknod', [join(here, 'disk'), 'b', '240', '0']);
    await store.get('f', join(here, 'null'));
    await assert.rejects(store.get('f', join(here, 'full')), { code: 'NO_SPACE' });
    await assert.rejects(store.get('f', join(here, 'disk')), { code: 'USAGE', message: /block device/ });
    for (const name of ['null', 'full']) assert.ok(lstatSync(join(here, name)).isCharacterDevice());
    assert.ok(lstatSync(join(here, 'disk')).isBlockDevice());
  });

  it('write at the position of an open file when the name is that of a descriptor', async function () {
    const { store, dir } = newStore(this);
    const here = dirname(dir);
    const content = Buffer.concat([noise(1, 600), Buffer.from('end')]);
    await store.put(Readable.from([content]), { tags: ['f'], name: null });
    for (const flags of ['w', 'a']) {
      for (const nameOf of [
        (fd: number) => `/dev/fd/${fd}`,
        (fd: number) => `/proc/self/fd/${fd}`,
        (fd: number) => `/proc/${process.pid}/task/${process.pid}/fd/${fd}`,
        (fd: number) => {
          rmSync(join(here, 'link'), { force: true });
          symlinkSync(`/dev/fd/${fd}`, join(here, 'link'));
          return join(here, 'link');
        },
      ]) {
        writeFileSync(join(here, 'log'), 'before ');
        const { ino } = statSync(join(here, 'log'));
        const fd = openSync(join(here, 'log'), flags);
        try {
          writeSync(fd, 'HEAD ');
          await store.get('f', nameOf(fd));
          writeSync(fd, ' TAIL');
        } finally {
          closeSync(fd);
        }
        const [head, tail] = [flags === 'a' ? 'before HEAD ' : 'HEAD ', ' TAIL'];
        const expected = Buffer.concat([Buffer.from(head), content, Buffer.from(tail)]);
        assert.ok(readFileSync(join(here, 'log')).equals(expected), `${flags} ${nameOf(9)}`);
        assert.equal(statSync(join(here, 'log')).ino, ino);
      }
    }
    rmSync(join(here, 'link'));
    assert.deepEqual(readdirSync(here).sort(), ['log', 'store']);

    // A file that another process has open: its position there cannot be known.
    const fd = openSync(join(here, 'log'), 'a');
    const other = spawn('cat', { stdio: ['pipe', fd, 'inherit'] });
    const before = readFileSync(join(here, 'log'));
    try {
      await assert.rejects(store.get('f', `/proc/${other.pid}/fd/1`), {
        code: 'USAGE',
        message: `cannot write /proc/${other.pid}/fd/1: another process has it open`,
      });
      await assert.rejects(store.get('f', `/proc/${other.pid}/exe`), { code: 'USAGE' });
    } finally {
      other.stdin!.end();
      closeSync(fd);
    }
    assert.ok(readFileSync(join(here, 'log')).equals(before));
    assert.deepEqual(readdirSync(here).sort(), ['log', 'store']);
  });

  it('refuse to write a file of the store under any name', async function () {
    const { store, dir } = newStore(this);
    const here = dirname(dir);
    await store.put(Readable.from([Buffer.from('text')]), { tags: ['f'], name: null });
    symlinkSync('store/packs', join(here, 'packs'));
    symlinkSync('store/store.db', join(here, 'db'));
    const before = readFileSync(join(dir, 'store.db'));
    const fd = openSync(join(dir, 'store.db'), 'r+');
    try {
      for (const name of [
        join(dir, 'store.db'),
        join(dir, 'new'),
        join(here, 'packs', readdirSync(join(dir, 'packs'))[0]!),
        join(here, 'db'),
        `/dev/fd/${fd}`,
      ])
        await assert.rejects(store.get('f', name), { code: 'USAGE', message: /it is in the store$/ });
    } finally {
      closeSync(fd);
    }
    assert.deepEqual(readFileSync(join(dir, 'store.db')), before);
    assert.ok((await store.check({ readData: true })).ok);
  });

  it('apply umask to a new file, and keep mode, owner and attributes of an existing one', async function () {
    const { store, dir } = newStore(this);
    const here = dirname(dir);
    await store.put(Readable.from([Buffer.from('text')]), { tags: ['f'], name: null });
    const file = join(here, 'file');
    const mode = (): number => statSync(file).mode & 0o7777;
    const umask = process.umask(0o027);
    try {
      await store.get('f', file);
      assert.equal(mode(), 0o640);
    } finally {
      process.umask(umask);
    }
    for (const wanted of [0o664, 0o600, 0o755]) {
      chmodSync(file, wanted);
      await store.get('f', file);
      assert.equal(mode(), wanted);
    }
    chmodSync(file, 0o6755);
    await store.get('f', file);
    assert.equal(mode(), 0o755, 'the set-user-ID bit is cleared, as by any write');
    if (process.getuid?.() !== 0) return;
    chownSync(file, 64055, 108);
    await store.get('f', file);
    assert.deepEqual([statSync(file).uid, statSync(file).gid], [64055, 108]);

    // user::rw-, user:1234:rw-, group::r--, mask::rw-, other::---
    const list =
      '02000000' + '01000600ffffffff' + '02000600d2040000' + '04000400ffffffff' + '10000600ffffffff';
    const python = (script: string): string =>
      execFileSync('python3', ['-c', `import os, sys; f = sys.argv[1]; ${script}`, file], {
        encoding: 'utf8',
      });
    const acl = `'system.posix_acl_access'`;
    python(
      `os.setxattr(f, ${acl}, bytes.fromhex('${list}20000000ffffffff')); os.setxattr(f, 'user.note', b'kept')`,
    );
    const attributes = (): string =>
      python(`print({n: os.getxattr(f, n).hex() for n in sorted(os.listxattr(f)) if 'selinux' not in n})`);
    const before = attributes();
    assert.match(before, /posix_acl_access.*user\.note/);
    await store.get('f', file);
    assert.equal(attributes(), before);
    // An existing file without an access list does not get the default one of its directory.
    python(`os.removexattr(f, ${acl})`);
    python(
      `os.setxattr(os.path.dirname(f), 'system.posix_acl_default', bytes.fromhex('${list}20000000ffffffff'))`,
    );
    chmodSync(file, 0o660);
    await store.get('f', file);
    assert.doesNotMatch(attributes(), /posix_acl_access/);
    assert.equal(mode(), 0o660);
  });

  it('refuse a file with other hard links, an unwritable file and a mount point', async function () {
    const { store, dir } = newStore(this);
    const here = dirname(dir);
    await store.put(Readable.from([Buffer.from('text')]), { tags: ['f'], name: null });
    writeFileSync(join(here, 'one'), 'mine');
    linkSync(join(here, 'one'), join(here, 'two'));
    await assert.rejects(store.get('f', join(here, 'one')), {
      code: 'USAGE',
      message: /it has 2 hard links/,
    });
    rmSync(join(here, 'two'));
    await store.get('f', join(here, 'one'));
    assert.equal(readFileSync(join(here, 'one'), 'utf8'), 'text');
    writeFileSync(join(here, 'one'), 'mine');
    mountReadOnly(this, join(here, 'one'));
    await assert.rejects(store.get('f', join(here, 'one')), { code: 'READ_ONLY' });
    assert.equal(readFileSync(join(here, 'one'), 'utf8'), 'mine');
    writeFileSync(join(here, 'three'), 'mine');
    writeFileSync(join(here, 'four'), 'mine');
    execFileSync('mount', ['--bind', join(here, 'three'), join(here, 'four')]);
    onDrop(this, () => execFileSync('umount', ['-l', join(here, 'four')]));
    await assert.rejects(store.get('f', join(here, 'four')), {
      code: 'READ_ONLY',
      message: /cannot be replaced where it is/,
      hint: /livesnap get SNAPSHOT - >/,
    });
    assert.equal(readFileSync(join(here, 'four'), 'utf8'), 'mine');
    assert.deepEqual(readdirSync(here).sort(), ['four', 'one', 'store', 'three']);
  });

  it('skip holes, and restore them', async function () {
    const { store, dir } = newStore(this);
    const here = dirname(dir);
    const file = join(here, 'sparse');
    const size = 2 ** 40 + 100;
    const fd = openSync(file, 'w');
    const parts: [number, Buffer][] = [
      [12_345, Buffer.from('within a page')],
      [2 ** 39, noise(1, 300)],
      [2 ** 39 + 400 * 4096, noise(2, 1)], // after a small hole
      [2 ** 39 + (1 << 22), noise(3, 600)],
      [size - 50, Buffer.alloc(50, 'end')],
    ];
    for (const [at, bytes] of parts) writeSync(fd, bytes, 0, bytes.length, at);
    closeSync(fd);
    let given = 0;
    const result = await store.put(file, { tags: ['s'], name: null }, (done) => {
      given = done;
    });
    assert.equal(given, size, 'the progress counts holes');
    assert.equal(result.pages, 2 ** 28 + 1);
    assert.equal(result.zeroPages, result.pages - 903);
    await store.get('s', join(here, 'out'));
    const out = statSync(join(here, 'out'));
    assert.equal(out.size, size);
    assert.ok(out.blocks * 512 < 8 << 20);
    const got = openSync(join(here, 'out'), 'r');
    for (const [at, bytes] of parts) {
      const there = Buffer.alloc(bytes.length);
      readSync(got, there, 0, there.length, at);
      assert.ok(there.equals(bytes), `at ${at}`);
    }
    closeSync(got);
    // Only holes, ending on and off a page boundary.
    for (const [index, bytes] of [1 << 30, (1 << 30) + 1, 4096, 1].entries()) {
      const hollow = join(here, `hollow-${index}`);
      writeFileSync(hollow, '');
      truncateSync(hollow, bytes);
      const { id, pages, zeroPages } = await store.put(hollow, { tags: [], name: null });
      assert.deepEqual([pages, zeroPages], [Math.ceil(bytes / 4096), Math.ceil(bytes / 4096)]);
      await store.get(id, join(here, 'out'));
      assert.equal(statSync(join(here, 'out')).size, bytes);
    }
  });

  it('store a file that grows or shrinks meanwhile up to where a read meets its end', async function () {
    const { store, dir } = newStore(this);
    const file = join(dirname(dir), 'file');
    const content = noise(1, 4000);
    /** Changes the file once the first pages are stored. */
    const putChanging = async (change: () => void): Promise<Buffer> => {
      let changed = false;
      const { id } = await store.put(file, { tags: [], name: null }, () => {
        if (!changed) change();
        changed = true;
      });
      await store.get(id, join(dirname(dir), 'out'));
      return readFileSync(join(dirname(dir), 'out'));
    };
    writeFileSync(file, content);
    assert.deepEqual(
      await putChanging(() => appendFileSync(file, 'and more')),
      Buffer.concat([content, Buffer.from('and more')]),
    );
    writeFileSync(file, content);
    const cut = 3500 * 4096 + 7;
    assert.deepEqual(await putChanging(() => truncateSync(file, cut)), content.subarray(0, cut));
    // The hole after the last data becomes shorter or longer.
    for (const later of [900 * 2 ** 20, 64 * 2 ** 20 + 5, 3000 * 2 ** 20]) {
      writeFileSync(file, content);
      truncateSync(file, 1 << 30);
      let changed = false;
      const { id } = await store.put(file, { tags: [], name: null }, () => {
        if (!changed) truncateSync(file, later);
        changed = true;
      });
      const { memoryBytes } = store.find(id);
      assert.equal(memoryBytes, later);
    }
    // Truncated below what has been read: the pages that were read stay.
    writeFileSync(file, content);
    const short = await putChanging(() => truncateSync(file, 0));
    assert.ok(short.length > 0 && short.equals(content.subarray(0, short.length)));
  });

  it('refuse more than 16 TiB, before reading anything if the size is known', async function () {
    const { store, dir } = newStore(this);
    const disk = join(dirname(dir), 'disk');
    mkdirSync(disk);
    mountSmall(this, disk, 64 << 20);
    const file = join(disk, 'file');
    writeFileSync(file, noise(1, 2000));
    truncateSync(file, 17 * 2 ** 40);
    let given = 0;
    const put = (change = () => {}) =>
      store.put(file, { tags: [], name: null }, (done) => {
        given = done;
        change();
      });
    const error = { code: 'USAGE', message: `cannot store ${file}: it is larger than 16 TiB` };
    await assert.rejects(put(), error);
    assert.equal(given, 0);
    truncateSync(file, 2 ** 40);
    await assert.rejects(
      put(() => truncateSync(file, 17 * 2 ** 40)),
      error,
    );
    assert.deepEqual(store.list(), []);
    truncateSync(file, 16 * 2 ** 40);
    assert.equal((await put()).pages, 2 ** 32);
  });

  it('read FIFOs, devices and files of procfs, whose size is shown as 0, to their end', async function () {
    const { store, dir } = newStore(this);
    const here = dirname(dir);
    const content = Buffer.concat([noise(1, 700), Buffer.from('end')]);
    const taken = async (id: string): Promise<Buffer> => {
      await store.get(id, join(here, 'out'));
      return readFileSync(join(here, 'out'));
    };
    const fifo = join(here, 'fifo');
    execFileSync('mkfifo', [fifo]);
    const put = store.put(fifo, { tags: [], name: null }); // before the FIFO has a writer
    writeFileSync(join(here, 'in'), content);
    const cat = spawn('sh', ['-c', 'cat "$1" >"$2"', 'sh', join(here, 'in'), fifo], { stdio: 'inherit' });
    assert.deepEqual(await taken((await put).id), content);
    assert.equal(cat.exitCode ?? 0, 0);
    assert.equal((await store.put('/dev/null', { tags: [], name: null })).pages, 0);
    const version = await store.put('/proc/version', { tags: [], name: null });
    assert.deepEqual(await taken(version.id), readFileSync('/proc/version'));
    assert.equal(store.find(version.id).vm, 'version');

    const socket = createServer();
    await new Promise<void>((resolve) => socket.listen(join(here, 'socket'), resolve));
    await assert.rejects(store.put(join(here, 'socket'), { tags: [], name: null }), { code: 'USAGE' });
    await new Promise((resolve) => socket.close(resolve));

    truncateSync(join(here, 'in'), 800 * 4096);
    const device = loopDevice(this, join(here, 'in'));
    const { id } = await store.put(device, { tags: [], name: null });
    assert.deepEqual(await taken(id), readFileSync(join(here, 'in')));
  });

  it('refuse a disk that a machine may write to, and let no machine write to one that is read', async function () {
    const { store } = newStore(this);
    const path = join(scratchDir(this), 'disk');
    writeFileSync(path, noise(1, 600));
    const machine = openSync(path, 'r+');
    onDrop(this, () => closeSync(machine));
    assert(lockImage(machine, 'exclusive'));
    const options = { tags: [], name: null };
    const error = {
      code: 'NOT_POSSIBLE_NOW',
      message: /^cannot (?:read|write) .*disk: another machine or program may write to it$/,
    };
    await assert.rejects(store.put(path, options), error);
    const { id } = await store.put(Readable.from([Buffer.from('other')]), options);
    await assert.rejects(store.get(id, path), error);
    assert(readFileSync(path).equals(noise(1, 600)));
    assert(lockBytes(machine, 'shared'));
    let tried = 0;
    await store.put(path, options, () => {
      tried++;
      assert(!lockImage(machine, 'exclusive'));
    });
    assert(tried > 0);
    assert(lockImage(machine, 'exclusive'), 'the lock ends with the reading');
  });

  it('accept names that are not UTF-8', async function () {
    const { store, dir } = newStore(this);
    const name = (last: string): Buffer =>
      Buffer.concat([Buffer.from(`${dirname(dir)}/`), Buffer.from(last, 'latin1')]);
    writeFileSync(name('in\xff'), 'text');
    const { id } = await store.put(name('in\xff'), { tags: [], name: null });
    assert.equal(store.find(id).vm, 'in\ufffd');
    assert.ok((await store.check({ readData: true })).ok);
    for (const target of [name('out\xfe'), name('out\xfe')]) {
      await store.get(id, target);
      assert.equal(readFileSync(target, 'utf8'), 'text');
    }
    mkdirSync(name('dir\xfd'));
    symlinkSync(Buffer.from('dir\xfd/far', 'latin1'), name('link\xfc'));
    await store.get(id, name('link\xfc'));
    assert.equal(readFileSync(name('dir\xfd/far'), 'utf8'), 'text');
    await assert.rejects(store.put(name('none\xff'), { tags: [], name: null }), {
      code: 'NO_SUCH_FILE',
      message: `cannot read ${dirname(dir)}/none\ufffd: no such file`,
    });
  });

  it('blame the source or target that failed, not the store', async function () {
    const { store, dir } = newStore(this);
    const here = dirname(dir);
    await assert.rejects(store.put('/proc/self/mem', { tags: [], name: null }), {
      code: 'SYSTEM',
      message: 'cannot read /proc/self/mem: EIO: i/o error, read',
      hint: 'Nothing was stored. The kernel log (dmesg) may say why it cannot be read.',
    });
    const failing = new Readable({
      read() {
        this.destroy(Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO' }));
      },
    });
    await assert.rejects(store.put(failing, { tags: [], name: null }), {
      code: 'SYSTEM',
      message: 'cannot read the stream: EIO: i/o error, read',
    });
    assert.deepEqual(store.list(), []);
    await store.put(Readable.from([noise(1, 700)]), { tags: ['f'], name: null });
    const small = join(here, 'small');
    mkdirSync(small);
    mountSmall(this, small, 1 << 20);
    await assert.rejects(store.get('f', join(small, 'out')), {
      code: 'NO_SPACE',
      message: `cannot write ${join(small, 'out')}: its disk is full`,
    });
    const fd = openSync(join(small, 'log'), 'a');
    try {
      await assert.rejects(store.get('f', `/dev/fd/${fd}`), {
        code: 'NO_SPACE',
        message: `cannot write /dev/fd/${fd}: its disk is full`,
      });
    } finally {
      closeSync(fd);
    }
    const full = new Writable({
      write(_chunk, _encoding, done) {
        done(Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' }));
      },
    });
    await assert.rejects(store.get('f', full), { code: 'NO_SPACE', message: /^cannot write the stream: / });
  });

  it('refuse sources, targets and snapshots that are missing or of the wrong kind', async function () {
    const { store, dir } = newStore(this);
    const here = dirname(dir);
    await assert.rejects(store.put(join(here, 'none'), { tags: [], name: null }), { code: 'NO_SUCH_FILE' });
    await assert.rejects(store.put(here, { tags: [], name: null }), {
      code: 'USAGE',
      message: `cannot read ${here}: it is a directory`,
    });
    await assert.rejects(store.put(join(dir, 'lock'), { tags: ['a/b'], name: null }), { code: 'USAGE' });
    const { id } = await save(store, { 'ram@0x0': noise(1, 1) });
    await assert.rejects(store.get(id, join(here, 'out')), { code: 'USAGE' });
    await assert.rejects(store.get('nothing', join(here, 'out')), { code: 'NO_SUCH_SNAPSHOT' });
    await store.put(join(dir, 'reserve'), { tags: ['r'], name: null });
    await assert.rejects(store.get('r', here), { code: 'USAGE' });
    await assert.rejects(store.get('r', join(here, 'no', 'such', 'directory')), { code: 'NO_SUCH_FILE' });
    await assert.rejects(store.get('r', '/dev/fd/99999'), {
      code: 'NO_SUCH_FILE',
      message: 'cannot write /dev/fd/99999: no such open file',
    });
    assert.deepEqual(readdirSync(here), ['store']);
  });

  it('leave no file behind when the disk of the target is full', async function () {
    const { store, dir } = newStore(this);
    const here = dirname(dir);
    writeFileSync(join(here, 'in'), noise(1, 700));
    await store.put(join(here, 'in'), { tags: ['f'], name: null });
    const small = join(here, 'small');
    mkdirSync(small);
    mountSmall(this, small, 1 << 20);
    await assert.rejects(store.get('f', join(small, 'out')), { code: 'NO_SPACE' });
    assert.deepEqual(readdirSync(small), []);
  });
});
