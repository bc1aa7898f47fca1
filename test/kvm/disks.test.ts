/** Machines with disks: saved into a real store while the guest writes, restored, and ended. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  appendFileSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LivesnapError } from '../../src/errors.js';
import { pageOps } from '../../src/native/pages.js';
import { readRegion } from '../../src/native/region-reader.js';
import { BATCH_PAGES, PAGE_BYTES, type SaveTarget } from '../../src/page-stream.js';
import { parsePackName } from '../../src/store/disk/layout.js';
import { FrameFlag } from '../../src/store/pack/pack-format.js';
import { PackReader } from '../../src/store/pack/pack-reader.js';
import { Store } from '../../src/store/store.js';
import type { DiskRequest } from '../../src/vmm/disk/disk-config.js';
import { Machine } from '../../src/vmm/machine.js';
import { decodeMachineState } from '../../src/vmm/machine-state.js';
import type { MachineEnd } from '../../src/vmm/machine-types.js';
import { dropScratch, flipBit, mountSmall } from '../store/scratch.js';
import { limit } from '../timeouts.js';
import { buildDiskGuest, DiskGuest } from './disk-guest.js';
import { requireKvm } from './kvm.js';
import { MemoryStore } from './memory-store.js';

const BLOCKS = 2048;
const BLOCK_BYTES = 4096;

describe('a machine with a disk', function () {
  this.timeout(limit(120_000));
  let dir: string;
  let kernel: string;
  let image: string;
  let store: Store;
  const machines: Machine[] = [];
  const stores: Store[] = [];

  before(function () {
    requireKvm(this);
    dir = mkdtempSync(join(tmpdir(), 'livesnap-disks-'));
    kernel = buildDiskGuest(join(dir, 'kernel'));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));
  beforeEach(() => {
    mkdirSync(join(dir, 'work'));
    image = join(dir, 'work/image');
    writeFileSync(image, Buffer.alloc(BLOCKS * BLOCK_BYTES, 'i'));
    store = openStore('store');
  });
  afterEach(async () => {
    for (const machine of machines.splice(0)) await machine.stop();
    for (const each of stores.splice(0)) each.close();
    assert.deepEqual(
      readdirSync(join(dir, 'work')).filter((name) => name.startsWith('.')),
      [],
      'no overlay is left',
    );
    rmSync(join(dir, 'work'), { recursive: true });
  });

  function openStore(name: string): Store {
    const opened = Store.open(join(dir, 'work', name), { write: true, create: true });
    stores.push(opened);
    return opened;
  }

  async function boot(
    disk: Partial<DiskRequest> = {},
    overlayDir: string = join(dir, 'work'),
  ): Promise<DiskGuest> {
    const request: DiskRequest = {
      source: { kind: 'file', path: image },
      mode: 'cow',
      onError: 'pause',
      ...disk,
    };
    const machine = await Machine.create(
      { kernel, initrd: null, cmdline: null, memoryBytes: 16 << 20, cpus: 1 },
      {
        disks: [request],
        host: { overlayDir, openStore: async () => store },
      },
    );
    machines.push(machine);
    return new DiskGuest(machine).boot();
  }

  async function restore(id: string, from: Store = store): Promise<DiskGuest> {
    const snapshot = await from.openSnapshot(id);
    try {
      const machine = await Machine.restore(snapshot, {
        store: from.key,
        overlayDir: join(dir, 'work'),
      });
      machines.push(machine);
      const guest = new DiskGuest(machine);
      await machine.resume();
      return guest;
    } finally {
      snapshot.close();
    }
  }

  /** Stores the image. */
  const put = async (): Promise<string> => (await store.put(image, { tags: [], name: null })).id;

  const save = (guest: DiskGuest, into: Store | MemoryStore = store) =>
    guest.machine.save(into, { vm: 'test', tags: [], then: null });

  /** A block of the disk in a snapshot. */
  async function blockIn(id: string, block: number, from: Store = store): Promise<Buffer> {
    const snapshot = await from.openSnapshot(id);
    const name = snapshot.regions.find((each) => !each.name.startsWith('ram@'))!.name;
    const region = await snapshot.openRegion(name);
    try {
      const bytes = Buffer.alloc(BLOCK_BYTES);
      assert.equal(readRegion(region.reader, block * BLOCK_BYTES, bytes), 0);
      return bytes;
    } finally {
      region.close();
      snapshot.close();
    }
  }

  it('reads and writes an image file itself', async () => {
    const guest = await boot({ mode: 'rw' });
    assert.equal(await guest.ask('ra'), 'ii');
    await guest.ask('wbB');
    await guest.ask('scC');
    assert.equal(await guest.ask('rc'), 'iC');
    const bytes = readFileSync(image);
    assert.equal(bytes[BLOCK_BYTES], 'B'.charCodeAt(0));
    assert.equal(bytes[2 * BLOCK_BYTES + 511], 'i'.charCodeAt(0));
    assert.equal(bytes[2 * BLOCK_BYTES + 512], 'C'.charCodeAt(0));
  });

  it('leaves an image as it is, with cow, and restores its disk without it', async () => {
    const guest = await boot();
    await guest.ask('waA');
    await guest.ask('sbB');
    const { id } = await save(guest);
    await guest.ask('waX');
    await guest.ask('wbX');
    assert(readFileSync(image).every((byte) => byte === 'i'.charCodeAt(0)));
    rmSync(image);
    const restored = await restore(id);
    assert.equal(await restored.ask('ra'), 'AA');
    assert.equal(await restored.ask('rb'), 'iB');
    assert.equal(await restored.ask('rc'), 'ii');
    await restored.ask('saS');
    assert.equal(await restored.ask('ra'), 'AS');
    assert.equal(await guest.ask('ra'), 'XX', 'the first machine has a disk of its own');
  });

  it('stores only the blocks that were written since the last save', async () => {
    const guest = await boot();
    await save(guest);
    await guest.ask('waA');
    const memory = new MemoryStore();
    await save(guest, memory);
    const second = await save(guest);
    const changed = second.newChunks + second.reusedChunks + second.zeroPages;
    assert(second.unchangedPages >= BLOCKS - 1, `${second.unchangedPages} pages are unchanged`);
    assert(changed < BLOCKS + 16 * 256);
    assert.equal(
      (await blockIn(second.id, 0)).every((byte) => byte === 'A'.charCodeAt(0)),
      true,
    );
    await guest.ask('wbB');
    await save(guest, memory);
    assert(memory.pagesGiven < 200, `${memory.pagesGiven} pages were given`);
  });

  it('is exact when two stores alternate', async () => {
    const other = openStore('other');
    const guest = await boot();
    await save(guest);
    await guest.ask('waA');
    await save(guest, other);
    await guest.ask('wbB');
    const { id: inFirst } = await save(guest);
    await guest.ask('wcC');
    const { id: inOther } = await save(guest, other);
    for (const [block, content] of [...'ABi'].entries())
      assert.equal(String.fromCharCode((await blockIn(inFirst, block))[0]!), content);
    for (const [block, content] of [...'ABC'].entries())
      assert.equal(String.fromCharCode((await blockIn(inOther, block, other))[0]!), content);
  });

  it('loses nothing when a save fails', async () => {
    const memory = new MemoryStore();
    const guest = await boot();
    await save(guest, memory);
    await guest.ask('waA');
    await guest.ask('wbB');
    memory.failAfterPages = 1;
    await assert.rejects(save(guest, memory), /the disk is full/);
    await guest.ask('wcC');
    const { id } = await save(guest, memory);
    const { pages } = memory.snapshots.get(id)!;
    for (const [block, content] of [...'ABCi'].entries())
      assert.equal(String.fromCharCode(pages[1]!.get(block)![0]!), content);
  });

  it('has RAM and disk of the same moment in a snapshot that is saved while the guest writes', async () => {
    const guest = await boot();
    await save(guest);
    guest.send('laa');
    for (let round = 0; round < 3; round++) {
      const { id } = await save(guest);
      const restored = await restore(id);
      // The command ends the writes after a pair, so both blocks have the character that was written last.
      const end = restored.ask('ra');
      assert.equal(await end, '');
      const first = (await restored.line()).slice(1);
      assert.match(first, /^([a-z])\1$/);
      assert.equal(await restored.ask('rb'), first);
      await restored.machine.stop();
    }
    await guest.ask('ra');
    await guest.line();
  });

  it('keeps blocks as they were at the moment while the guest writes to them', async () => {
    const guest = await boot();
    await save(guest);
    guest.send('laa');
    // The guest has time to write between the moment and the reading of its blocks.
    const slow: SaveTarget = {
      key: store.key,
      async beginSave(options) {
        const session = await store.beginSave(options);
        return {
          bases: session.bases,
          parent: session.parent,
          store: (source, progress) =>
            session.store(
              {
                regions: source.regions,
                next: async (into) => {
                  await sleep(50);
                  return source.next(into);
                },
              },
              progress,
            ),
          commit: (metadata) => session.commit(metadata),
          abort: () => session.abort(),
        };
      },
    };
    const { id } = await guest.machine.save(slow, { vm: 'test', tags: [], then: null });
    const snapshot = await store.openSnapshot(id);
    const { r10 } = decodeMachineState(snapshot.metadata.state).vcpus[0]!.regs;
    snapshot.close();
    // The guest writes one character to both blocks, then the next one.
    const now = String.fromCharCode(Number(r10 & 0xffn));
    const before = now === 'a' ? 'z' : String.fromCharCode(now.charCodeAt(0) - 1);
    for (const block of [0, 1]) {
      const found = String.fromCharCode((await blockIn(id, block))[0]!);
      assert([now, before].includes(found), `block ${block} has ${found} when the guest wrote ${now}`);
    }
    await guest.ask('ra');
    await guest.line();
  });

  it('is based on a stored image, and its first save stores only what the machine wrote', async () => {
    const stored = await put();
    const guest = await boot({ source: { kind: 'snapshot', snapshot: stored, region: null }, mode: 'rw' });
    await guest.ask('saA');
    const { id, unchangedPages } = await save(guest);
    assert(unchangedPages >= BLOCKS - 1, `${unchangedPages} pages are unchanged`);
    const block = await blockIn(id, 0);
    assert.equal(String.fromCharCode(block[0]!, block[512]!, block[1024]!), 'iAi');
    assert.equal((await blockIn(stored, 0))[512], 'i'.charCodeAt(0));
  });

  it('saves what was written to a stored image when the guest ends', async () => {
    const stored = await put();
    const guest = await boot({ source: { kind: 'snapshot', snapshot: stored, region: 'file' }, mode: 'rw' });
    const { machine } = guest;
    assert(machine.savesDisks);
    await guest.ask('wbB');
    const off = new Promise<void>((resolve) => machine.once('poweredOff', resolve));
    guest.send('q');
    await off;
    assert.equal(machine.state, 'paused');
    await assert.rejects(machine.resume(), { code: 'NOT_POSSIBLE_NOW' });
    const progress: [number, number | null][] = [];
    const saved = await machine.saveDisks((use) => use(store), {
      ...{ vm: 'test', tags: ['test-disk'] },
      progress: (...each) => void progress.push(each),
    });
    assert.deepEqual(progress.at(-1), [4096, 4096], 'the block that was written');
    const ended = once(machine, 'end');
    await machine.stop();
    assert.deepEqual(await ended, [{ kind: 'reset' }]);
    assert.equal((await store.find('test-disk')).kind, 'disk');
    assert.equal(String.fromCharCode((await blockIn(saved!.id, 1))[0]!), 'B');
    const next = await boot({
      source: { kind: 'snapshot', snapshot: 'test-disk', region: null },
      mode: 'rw',
    });
    assert.equal(await next.ask('rb'), 'BB');
    assert.equal(await next.ask('rc'), 'ii');
  });

  it('saves what was written to a stored image when the machine fails', async () => {
    const stored = await put();
    const guest = await boot({ source: { kind: 'snapshot', snapshot: stored, region: null }, mode: 'rw' });
    const { machine } = guest;
    await guest.ask('wbB');
    const off = new Promise<void>((resolve) => machine.once('poweredOff', resolve));
    const ended = once(machine, 'end');
    guest.send('f');
    await Promise.race([off, ended.then(() => assert.fail('it ended with its disks'))]);
    const saved = await machine.saveDisks((use) => use(store), { vm: 'test', tags: [] });
    assert.equal(String.fromCharCode((await blockIn(saved!.id, 1))[0]!), 'B');
    await machine.stop();
    assert.equal(machine.end?.kind, 'failed');
  });

  it('names the disks whose writes are lost when the device thread fails, and no others', async () => {
    const stored = await put();
    const source = { kind: 'snapshot', snapshot: stored, region: null } as const;
    const crash = async (guest: Awaited<ReturnType<typeof boot>>): Promise<string> => {
      const ended = once(guest.machine, 'end') as Promise<[MachineEnd]>;
      guest.machine.writeConsole({ length: 1 } as Uint8Array); // no caller does this: it stands for a bug
      const [end] = await ended;
      assert(end.kind === 'failed');
      return end.error.message;
    };
    const written = await boot({ source, mode: 'rw' });
    await written.ask('wbB');
    assert.match(
      await crash(written),
      /^the device thread failed: .*; what the guest wrote to disk0 since the last save is lost$/,
    );
    for (const disk of [{ source, mode: 'rw' } as const, { mode: 'rw' } as const]) {
      const guest = await boot(disk);
      if (!('source' in disk)) await guest.ask('wbB');
      assert.doesNotMatch(await crash(guest), /lost/);
    }
  });

  it('saves no disks that were not written since the last save, or whose writes are not kept', async () => {
    const stored = await put();
    const source = { kind: 'snapshot', snapshot: stored, region: null } as const;
    const unwritten = await boot({ source, mode: 'rw' });
    const noStore = (): never => assert.fail('the store is opened though nothing was written');
    assert.equal(await unwritten.machine.saveDisks(noStore, { vm: 'test', tags: [] }), null);
    assert.equal(await unwritten.machine.saveDisks((use) => use(store), { vm: 'test', tags: [] }), null);
    await unwritten.machine.resume();
    await unwritten.ask('waA');
    await save(unwritten);
    assert.equal(await unwritten.machine.saveDisks((use) => use(store), { vm: 'test', tags: [] }), null);
    assert.equal((await boot({ source, mode: 'cow' })).machine.savesDisks, false);
    assert.equal((await boot({ mode: 'rw' })).machine.savesDisks, false);
  });

  it('saves disks whose last save was removed from the store, though nothing was written since', async () => {
    const stored = await put();
    const guest = await boot({ source: { kind: 'snapshot', snapshot: stored, region: null }, mode: 'rw' });
    await guest.ask('waA');
    const { id } = await save(guest);
    store.remove([id]);
    const saved = await guest.machine.saveDisks((use) => use(store), { vm: 'test', tags: [] });
    assert(saved, 'the disks are saved');
    assert.equal((await blockIn(saved.id, 0)).toString('latin1', 0, 1), 'A');
  });

  it('saves disks in full when it ends and a base is found to be damaged', async () => {
    const stored = await put();
    const guest = await boot({ source: { kind: 'snapshot', snapshot: stored, region: null }, mode: 'rw' });
    await guest.ask('waA');
    const damaged: SaveTarget = {
      key: store.key,
      async beginSave(options) {
        const session = await store.beginSave(options);
        if (options.regions.every(({ bases }) => bases.length === 0)) return session;
        return {
          bases: session.bases,
          parent: session.parent,
          store: () => Promise.reject(new LivesnapError('DAMAGED', 'a base cannot be read')),
          commit: (metadata) => session.commit(metadata),
          abort: () => session.abort(),
        };
      },
    };
    const saved = await guest.machine.saveDisks((use) => use(damaged), { vm: 'test', tags: [] });
    assert.equal(String.fromCharCode((await blockIn(saved!.id, 0))[0]!), 'A');
    assert.equal(String.fromCharCode((await blockIn(saved!.id, 1))[0]!), 'i');
  });

  it('saves only the region in full whose base is found to be damaged', async () => {
    writeFileSync(image, randomBytes(BLOCKS * BLOCK_BYTES));
    await put(); // whose pack then has the manifest blocks of the disk, and none of RAM
    const [pack] = readdirSync(join(store.dir, 'packs')) as [string];
    const guest = await boot();
    const first = await save(guest);
    await guest.ask('waA');
    const reader = new PackReader(pageOps, store.dir, parsePackName(pack)!);
    const frame = [...reader.frames].find(({ flags }) => (flags & FrameFlag.manifest) !== 0)!;
    reader.close();
    flipBit(join(store.dir, 'packs', pack), frame.offset + 100);

    const bases: (readonly (number | null)[])[] = [];
    const watched: SaveTarget = {
      key: store.key,
      async beginSave(options) {
        const session = await store.beginSave(options);
        bases.push(session.bases);
        return session;
      },
    };
    const second = await guest.machine.save(watched, { vm: 'test', tags: [], then: null });
    assert.deepEqual(bases, [
      [0, 0],
      [0, null],
    ]);
    assert.equal(second.parent, first.id);
    assert.equal(String.fromCharCode((await blockIn(second.id, 0))[0]!), 'A');
    const bytes = readFileSync(image);
    for (const block of [1, 511, 512, BLOCKS - 1])
      assert.ok(
        (await blockIn(second.id, block)).equals(
          bytes.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES),
        ),
      );
    const restored = await restore(second.id);
    assert.equal(await restored.ask('ra'), 'AA');
    // The next save is relative to this one, in both regions.
    await guest.ask('wbB');
    await guest.machine.save(watched, { vm: 'test', tags: [], then: null });
    assert.deepEqual(bases.slice(2), [[0, 0]]);
  });

  describe('whose overlay has no room', () => {
    let overlays: string;
    let ballast: string;

    beforeEach(function () {
      overlays = join(dir, 'work/overlays');
      ballast = join(overlays, 'ballast');
      mkdirSync(overlays);
      mountSmall(this, overlays, 16 << 20);
    });
    afterEach(async function () {
      for (const machine of machines.splice(0)) await machine.stop();
      dropScratch(this);
    });

    const fillUp = (): void =>
      assert.throws(
        () => {
          for (;;) appendFileSync(ballast, Buffer.alloc(16 * BLOCK_BYTES));
        },
        { code: 'ENOSPC' },
      );

    it('is paused and says so; it can be saved, and goes on when there is room', async () => {
      const guest = await boot({}, overlays);
      const { machine } = guest;
      fillUp();
      const paused = once(machine, 'problem');
      guest.send('wbB');
      const [problem] = (await paused) as [string];
      assert.match(problem, /^disk0 has no room for its overlay/);
      assert.equal(machine.state, 'paused');

      const { id } = await save(guest);
      const restored = await restore(id);
      assert.equal(await restored.line(), '0', 'the write is done after the restore');
      assert.equal(await restored.ask('rb'), 'BB');

      const again = once(machine, 'problem');
      await machine.resume();
      assert.deepEqual(await again, [problem]);
      rmSync(ballast);
      await machine.resume();
      assert.equal(await guest.line(), '0');
      assert.equal(await guest.ask('rb'), 'BB');
      assert.equal(machine.problem, null);
    });

    it('gives the guest an error with on-error=report, and keeps the block as it was', async () => {
      const guest = await boot({ onError: 'report' }, overlays);
      fillUp();
      guest.send('wbB');
      assert.match(await guest.line(), /^1/);
      assert.equal(await guest.ask('rb'), 'ii');
      rmSync(ballast);
      await guest.ask('wbB');
      assert.equal(await guest.ask('rb'), 'BB');
    });
  });

  describe('whose store is damaged', () => {
    let stored: string;
    let random: Buffer;
    /** Far from the first block, which was read at the start. */
    const FAR = 150;
    const readFar = `r${String.fromCharCode(97 + FAR)}`;
    const far = (): string =>
      String.fromCharCode(random[FAR * BLOCK_BYTES]!, random[FAR * BLOCK_BYTES + 512]!);

    beforeEach(async () => {
      random = randomBytes(BLOCKS * BLOCK_BYTES);
      // Bytes that are no line ends.
      random.forEach((byte, i) => {
        random[i] = byte | 0x20;
      });
      writeFileSync(image, random);
      stored = await put();
    });

    /** Overwrites all packs; returns the function that heals them. */
    function damage(): () => void {
      const packs = join(dir, 'work/store/packs');
      const whole = readdirSync(packs).map(
        (name) => [join(packs, name), readFileSync(join(packs, name))] as const,
      );
      const overwrite = (path: string, bytes: Buffer): void => {
        const fd = openSync(path, 'r+');
        writeSync(fd, bytes, 0, bytes.length, 0);
        closeSync(fd);
      };
      for (const [path, bytes] of whole) overwrite(path, Buffer.alloc(bytes.length, 0x5a));
      return () => {
        for (const [path, bytes] of whole) overwrite(path, bytes);
      };
    }

    it('is paused, says why, and continues when it is resumed after a repair', async () => {
      const guest = await boot({ source: { kind: 'snapshot', snapshot: stored, region: null }, mode: 'rw' });
      const heal = damage();
      const paused = once(guest.machine, 'problem');
      guest.send(readFar);
      const [problem] = (await paused) as [string];
      assert.equal(problem, `disk0 cannot read snapshot ${stored}:file at block ${FAR}`);
      assert.equal(guest.machine.problem, problem);
      assert.equal(guest.machine.state, 'paused');
      // It tries again, and fails again.
      const again = once(guest.machine, 'problem');
      await guest.machine.resume();
      await again;
      heal();
      await guest.machine.resume();
      assert.equal(guest.machine.problem, null);
      assert.equal(await guest.line(), `0${far()}`);
    });

    it('is saved with the request that waits, and does it after a restore', async () => {
      const guest = await boot({ source: { kind: 'snapshot', snapshot: stored, region: null }, mode: 'rw' });
      const heal = damage();
      const paused = once(guest.machine, 'problem');
      guest.send(readFar);
      await paused;
      heal();
      const { id } = await save(guest);
      assert.equal(guest.machine.state, 'paused');
      const restored = await restore(id);
      assert.equal(await restored.line(), `0${far()}`);
    });

    it('is paused after a save in progress, and says so once', async () => {
      const guest = await boot({ source: { kind: 'snapshot', snapshot: stored, region: null }, mode: 'rw' });
      const { machine } = guest;
      const problems: string[] = [];
      machine.on('problem', (problem) => problems.push(problem));
      const heal = damage();
      // Takes everything, and has the disk's base.
      const target: SaveTarget = {
        key: store.key,
        beginSave: async ({ regions }) => ({
          bases: regions.map(({ bases }) => (bases.length > 0 ? 0 : null)),
          parent: null,
          store: async (source) => {
            guest.send(readFar);
            while (machine.problem === null) await sleep(1);
            const into = new Uint8Array(BATCH_PAGES * PAGE_BYTES);
            while ((await source.next(into)) !== null);
          },
          commit: async ({ tags }) => ({
            ...{ id: stored, tags, movedTags: [], parent: null, pages: 0, zeroPages: 0 },
            ...{ unchangedPages: 0, newChunks: 0, reusedChunks: 0, storedBytes: 0 },
          }),
          abort: async () => {},
        }),
      };
      await machine.save(target, { vm: 'test', tags: [], then: null });
      await machine.pause();
      assert.equal(problems.length, 1, `the problems are ${problems.join(', ')}`);
      assert.equal(machine.problem, problems[0]);
      heal();
      await machine.resume();
      assert.equal(await guest.line(), `0${far()}`);
    });

    it('gives the guest an error with on-error=report', async () => {
      const guest = await boot({
        source: { kind: 'snapshot', snapshot: stored, region: null },
        mode: 'rw',
        onError: 'report',
      });
      const heal = damage();
      guest.send(readFar);
      assert.equal((await guest.line())[0], '1');
      assert.equal(guest.machine.state, 'running');
      heal();
      assert.equal(await guest.ask(readFar), far());
    });
  });

  it('refuses a snapshot that lacks its disk', async () => {
    const guest = await boot();
    const memory = new MemoryStore();
    const { id } = await save(guest, memory);
    const snapshot = memory.open(id);
    await assert.rejects(
      Machine.restore({ ...snapshot, regions: snapshot.regions.slice(0, 1) }, memory.place),
      (error) => error instanceof LivesnapError && error.code === 'BAD_STATE',
    );
  });
});
