/** Machines that run before all of their RAM is filled. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LivesnapError } from '../../src/errors.js';
import { lazyFillErrno } from '../../src/native/memory-fill.js';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { Store } from '../../src/store/store.js';
import { Machine } from '../../src/vmm/machine.js';
import type { MachineEnd } from '../../src/vmm/machine-types.js';
import { WorkingSets } from '../../src/vmm/memory/working-set.js';
import { limit } from '../timeouts.js';
import { GuestConsole } from './guest-console.js';
import { probe, requireKvm } from './kvm.js';
import { MemoryStore } from './memory-store.js';

const MIB = 1 << 20;
const SAVE = { vm: 'test', tags: [], then: 'pause' } as const;

describe('a machine that runs while its RAM is filled', function () {
  this.timeout(limit(180_000));
  const machines: Machine[] = [];
  let dir: string;
  let store: Store;

  before(function () {
    requireKvm(this);
    if (lazyFillErrno() !== null) {
      process.stderr.write('    SKIPPED: this user may not serve page faults of a guest\n');
      this.skip();
    }
  });
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-lazy-'));
    store = Store.open(join(dir, 'store'), { write: true, create: true });
  });
  afterEach(async () => {
    for (const machine of machines.splice(0)) await machine.stop();
    store.close();
    rmSync(dir, { recursive: true, force: true });
  });

  /** A machine that was saved and stopped: its snapshot, all of its pages at that moment, and a sum over its RAM. */
  async function saved(memoryMib = 256, usedMib = 32) {
    const config = { kernel: probe('probe.bzImage'), initrd: null, cmdline: null };
    const machine = await Machine.create({ ...config, memoryBytes: memoryMib * MIB, cpus: 2 });
    machines.push(machine);
    const console = new GuestConsole(machine);
    await machine.resume();
    await console.line(/^PROBE READY .* cpus=/);
    await console.command(`text 7 ${usedMib - 8}`, /^OK/);
    await console.command('fill 9 8', /^OK/);
    const sum = await console.command(`sum ${usedMib}`, /^SUM/);
    const { id } = await machine.save(store, SAVE);
    await machine.stop();
    return { id, console, sum };
  }

  /** All pages of a machine, by a save in full; then it is stopped. */
  async function pagesOf(machine: Machine): Promise<readonly Map<number, Uint8Array>[]> {
    const full = new MemoryStore();
    const { id } = await machine.save(full, SAVE);
    await machine.stop();
    return full.snapshots.get(id)!.pages;
  }

  async function restore(id: string, lazy: boolean, from = store): Promise<Machine> {
    const snapshot = await from.openSnapshot(id);
    try {
      const machine = await Machine.restore(snapshot, {
        store: from.key,
        overlayDir: dir,
        fill: lazy ? 'lazy' : 'eager',
      });
      machines.push(machine);
      return machine;
    } finally {
      snapshot.close();
    }
  }

  it('begins with the working set that an earlier restore kept, and a wrong one changes nothing', async () => {
    const { id, console: before, sum } = await saved(384, 200);
    const expected = await pagesOf(await restore(id, false));
    const logged: string[] = [];
    const sets = new WorkingSets(join(dir, 'sets'), (sentence) => logged.push(sentence));
    const own = differences(expected, await pagesOf(await restore(id, false)));
    const restoreWithSets = async (): Promise<Machine> => {
      const snapshot = await store.openSnapshot(id);
      const options = { store: store.key, overlayDir: dir, fill: 'lazy', workingSets: sets } as const;
      const machine = await Machine.restore(snapshot, options);
      snapshot.close();
      machines.push(machine);
      return machine;
    };
    const machine = await restoreWithSets();
    await machine.resume();
    assert.equal(await new GuestConsole(machine, before).command('sum 200', /^SUM/), sum);
    let kept = await sets.read(id);
    for (; kept.length === 0; kept = await sets.read(id)) await sleep(5);
    assert.deepEqual(differences(expected, await pagesOf(await restoreWithSets())), own);
    await sets.keep(id, Uint32Array.from([9, 9, 0, 2 ** 32 - 1, 1, 0]));
    assert.deepEqual(differences(expected, await pagesOf(await restoreWithSets())), own);
    assert.deepEqual(logged, []);
  });

  type Pages = readonly Map<number, Uint8Array>[];

  /** The pages that differ, as region:page. */
  function differences(one: Pages, other: Pages): string[] {
    const zero = Buffer.alloc(4096);
    return one.flatMap((map, region) =>
      [...new Set([...map.keys(), ...other[region]!.keys()])]
        .filter((page) => !Buffer.from(map.get(page) ?? zero).equals(other[region]!.get(page) ?? zero))
        .map((page) => `${region}:${page}`),
    );
  }

  it('goes on where it was saved, also when it is paused and resumed meanwhile', async () => {
    const { id, console: before, sum } = await saved();
    const machine = await restore(id, true);
    const console = new GuestConsole(machine, before);
    await machine.resume();
    for (let i = 0; i < 5; i++) {
      await machine.pause();
      await machine.resume();
    }
    assert.equal(await console.command('sum 32', /^SUM/), sum);
    await console.line(/TICK/);
  });

  it('is saved in full with every byte, however much is filled', async () => {
    const { id } = await saved();
    const expected = await pagesOf(await restore(id, false));
    // Each restore writes a VM generation ID of its own.
    const own = differences(expected, await pagesOf(await restore(id, false)));
    assert.ok(own.length <= 1, own.join());
    for (let round = 0; round < 3; round++)
      assert.deepEqual(differences(expected, await pagesOf(await restore(id, true))), own);
  });

  it('completes the fill of a large memory before it is saved in full', async () => {
    const { id, console: before, sum } = await saved(384, 200);
    const other = Store.open(join(dir, 'other'), { write: true, create: true });
    try {
      const machine = await restore(id, true);
      const console = new GuestConsole(machine, before);
      const full = await machine.save(other, SAVE);
      await machine.stop();
      const again = await restore(full.id, false, other);
      const after = new GuestConsole(again, console);
      await again.resume();
      assert.equal(await after.command('sum 200', /^SUM/), sum);
    } finally {
      other.close();
    }
  });

  it('is saved relative to its snapshot at once, and the save is whole', async () => {
    const { id, console: before, sum } = await saved();
    const machine = await restore(id, true);
    const console = new GuestConsole(machine, before);
    await machine.resume();
    const second = await machine.save(store, SAVE);
    assert.equal(second.parent, id);
    await machine.stop();
    const again = await restore(second.id, false);
    const after = new GuestConsole(again, console);
    await again.resume();
    assert.equal(await after.command('sum 32', /^SUM/), sum);
  });

  it('ends at any moment when it is stopped', async () => {
    const { id, console: before } = await saved();
    for (let round = 0; round < 8; round++) {
      const machine = await restore(id, true);
      const console = new GuestConsole(machine, before.loseTrack());
      await machine.resume();
      machine.writeConsole(Buffer.from('sum 32\n'));
      if (round % 2 === 1) await console.line(/TICK/);
      await machine.stop();
      assert.deepEqual(machine.end, { kind: 'stopped' });
    }
  });

  it('keeps the data of its snapshot, though that is removed and gc runs', async () => {
    const { id, console: before, sum } = await saved();
    const machine = await restore(id, true);
    store.remove([id]);
    await store.gc({ dryRun: false });
    const console = new GuestConsole(machine, before);
    await machine.resume();
    assert.equal(await console.command('sum 32', /^SUM/), sum);
  });

  it('ends with the page and the snapshot named when the store turns out to be damaged', async () => {
    const { id } = await saved();
    const packs = join(dir, 'store/packs');
    for (const name of readdirSync(packs)) {
      const bytes = readFileSync(join(packs, name));
      // Late enough that the machine exists when it is found.
      for (let at = bytes.length >> 1; at < bytes.length * 0.6; at += 5000) bytes[at]! ^= 1;
      writeFileSync(join(packs, name), bytes);
    }
    for (let round = 0; round < 3; round++) {
      let error: unknown;
      try {
        const machine = await restore(id, true);
        const ended = new Promise<MachineEnd>((resolve) => machine.once('end', resolve));
        const saving = machine.save(new MemoryStore(), SAVE).catch((failure: LivesnapError) => failure);
        if (round === 1) await machine.resume().catch(() => {});
        const end = await ended;
        assert.equal(end.kind, 'failed');
        error = end.kind === 'failed' ? end.error : null;
        const failure = await saving;
        assert.ok(failure instanceof LivesnapError && failure.code === 'MACHINE_GONE', String(failure));
      } catch (thrown) {
        error = thrown;
      }
      assert.ok(error instanceof LivesnapError, String(error));
      assert.equal(error.code, 'DAMAGED', error.message);
      assert.match(error.message, new RegExp(`^the page of RAM at 0x[0-9a-f]+ .* snapshot ${id}: packs/`));
      const { snapshot, region, fromBytes, toBytes } = error.damage!;
      assert.deepEqual([snapshot, region], [id, 'ram@0x0']);
      assert.ok(error.message.startsWith(`the page of RAM at 0x${fromBytes!.toString(16)} `));
      assert.equal(toBytes, fromBytes! + PAGE_BYTES);
    }
  });
});
