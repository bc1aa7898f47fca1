/** Saves machines while they run, and restores them. */
import assert from 'node:assert/strict';
import { LivesnapError } from '../../src/errors.js';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { Machine } from '../../src/vmm/machine.js';
import { limit } from '../timeouts.js';
import { GuestConsole } from './guest-console.js';
import { probe, requireKvm } from './kvm.js';
import { MemoryStore } from './memory-store.js';

const MIB = 1 << 20;
const SAVE = { vm: 'test', tags: [], then: null } as const;

describe('saving and restoring a machine', function () {
  this.timeout(limit(120_000));
  const machines: Machine[] = [];

  before(function () {
    requireKvm(this);
  });
  afterEach(async () => {
    for (const machine of machines.splice(0)) await machine.stop();
  });

  async function start(cpus: number, memoryMib: number): Promise<[Machine, GuestConsole]> {
    const machine = await Machine.create({
      kernel: probe('probe.bzImage'),
      initrd: null,
      cmdline: null,
      memoryBytes: memoryMib * MIB,
      cpus,
    });
    machines.push(machine);
    const console = new GuestConsole(machine);
    await machine.resume();
    await console.line(/^PROBE READY .* cpus=/);
    return [machine, console];
  }

  async function restore(
    store: MemoryStore,
    id: string,
    from: GuestConsole,
  ): Promise<[Machine, GuestConsole]> {
    const machine = await Machine.restore(store.open(id), store.place);
    machines.push(machine);
    const console = new GuestConsole(machine, from);
    await machine.resume();
    return [machine, console];
  }

  for (const [cpus, memoryMib] of [
    [1, 64],
    [2, 256],
    [4, 64],
  ] as const) {
    it(`keeps a machine with ${cpus} vCPUs and ${memoryMib} MiB running over three generations`, async () => {
      const store = new MemoryStore();
      let [machine, console] = await start(cpus, memoryMib);
      await console.command('text 7 6', /^OK/);
      await console.command('fill 9 4', /^OK/);
      const sum = await console.command('sum 12', /^SUM/);
      for (let generation = 0; generation < 3; generation++) {
        await console.line(/TICK/);
        const before = await console.counters();
        assert.equal(before.length, cpus);
        const saved = await machine.save(store, { ...SAVE, then: 'pause' });
        assert.equal(saved.parent === null, generation === 0, 'later saves are incremental');
        await machine.stop();
        [machine, console] = await restore(store, saved.id, console);
        assert.equal(machine.snapshot, saved.id);
        // Ticks that the guest missed may come at once: only the counters tell that every vCPU runs.
        const runsOn = (after: number[]): boolean => after.every((count, cpu) => count > before[cpu]!);
        while (!runsOn(await console.counters())) await console.line(/TICK/);
        assert.equal(await console.command('sum 12', /^SUM/), sum);
      }
    });
  }

  it('keeps the RAM on both sides of the hole below 4 GiB', async () => {
    const store = new MemoryStore();
    let [machine, console] = await start(1, 5120);
    await console.command('text 1 8', /^OK/);
    const sum = await console.command('sum 8', /^SUM/);
    const { id } = await machine.save(store, { ...SAVE, then: 'pause' });
    assert.deepEqual(
      store.snapshots.get(id)!.regions.map(({ name }) => name),
      ['ram@0x0', 'ram@0x100000000'],
    );
    assert(store.pagesGiven * PAGE_BYTES < 64 * MIB, 'holes are not read');
    await machine.stop();
    [machine, console] = await restore(store, id, console);
    assert.equal(await console.command('sum 8', /^SUM/), sum);
  });

  it('saves one moment while the guest writes', async () => {
    const store = new MemoryStore();
    let [machine, console] = await start(2, 64);
    await console.command('fill 3 16', /^OK/);
    const sum = await console.command('sum 16', /^SUM/);
    await console.command('dirty 20000', /^OK/);
    const { id, pauseMs } = await machine.save(store, SAVE);
    assert(pauseMs > 0);
    assert.equal(machine.state, 'running');
    // The saved machine runs on.
    await console.line(/TICK/);
    assert.equal(await console.command('sum 16', /^SUM/), sum);
    await machine.stop();
    [machine, console] = await restore(store, id, console.loseTrack());
    await console.line(/TICK/);
    assert.equal(await console.command('sum 16', /^SUM/), sum);
  });

  it('loses no dirty page when a save fails', async () => {
    const store = new MemoryStore();
    let [machine, console] = await start(1, 64);
    await machine.save(store, SAVE);
    await console.command('fill 5 8', /^OK/);
    const sum = await console.command('sum 8', /^SUM/);
    store.failAfterPages = 1;
    await assert.rejects(machine.save(store, SAVE), /disk is full/);
    assert.equal(machine.state, 'running');
    await console.line(/TICK/);
    const saved = await machine.save(store, { ...SAVE, then: 'stop' });
    assert.notEqual(saved.parent, null);
    assert(store.pagesGiven >= (8 * MIB) / PAGE_BYTES, `only ${store.pagesGiven} pages were given`);
    assert.equal(machine.state, 'stopped');
    [machine, console] = await restore(store, saved.id, console);
    assert.equal(await console.command('sum 8', /^SUM/), sum);
  });

  it('resumes at once when a save fails at its end, and reports why the save failed', async () => {
    const store = new MemoryStore();
    const [machine, console] = await start(1, 64);
    const states: string[] = [];
    store.beforeCommit = async () => {
      states.push(machine.state);
      throw new Error('the disk is full');
    };
    store.beforeAbort = async () => {
      states.push(machine.state);
      throw new Error('the save cannot be given up');
    };
    await assert.rejects(machine.save(store, { ...SAVE, then: 'pause' }), /disk is full/);
    assert.deepEqual(states, ['paused', 'running'], 'the guest does not wait while the save is given up');
    assert.equal(machine.state, 'running');
    await console.line(/TICK/);
  });

  it('neither loses nor repeats a byte of a busy console', async () => {
    const store = new MemoryStore();
    let [machine, console] = await start(2, 64);
    await console.command('bar 2', /^OK bar/);
    for (let i = 0; i < 5; i++) {
      machine.writeConsole(Buffer.from('cpus\n'.repeat(20)));
      await console.line(/^CPUS/);
      const { id } = await machine.save(store, { ...SAVE, then: 'pause' });
      await machine.stop();
      [machine, console] = await restore(store, id, console);
      // Twenty answers in all, each a whole line.
      for (let answer = 1; answer < 20; answer++) assert.match(await console.line(/CPUS/), /^CPUS \d+,\d+$/);
    }
  });

  it('saves in full when the parent is gone', async () => {
    const store = new MemoryStore();
    let [machine, console] = await start(1, 64);
    await console.command('text 5 8', /^OK/);
    const sum = await console.command('sum 8', /^SUM/);
    await machine.save(store, SAVE);
    store.snapshots.clear();
    const { id, parent } = await machine.save(store, SAVE);
    assert.equal(parent, null);
    await machine.stop();
    [machine, console] = await restore(store, id, console.loseTrack());
    assert.equal(await console.command('sum 8', /^SUM/), sum);
  });

  it('saves in full when something of the parent is damaged', async () => {
    const store = new MemoryStore();
    let [machine, console] = await start(1, 64);
    await console.command('text 5 8', /^OK/);
    const sum = await console.command('sum 8', /^SUM/);
    await machine.save(store, SAVE);
    await console.command('text 6 1', /^OK/);
    store.failAfterPages = 1;
    store.failure = new LivesnapError('DAMAGED', 'a block of the parent cannot be read');
    const { id, parent } = await machine.save(store, SAVE);
    assert.equal(parent, null);
    await machine.stop();
    [machine, console] = await restore(store, id, console.loseTrack());
    assert.equal(await console.command('sum 8', /^SUM/), sum);
  });

  it('saves a paused machine and leaves it paused', async () => {
    const store = new MemoryStore();
    const [machine, console] = await start(2, 64);
    await console.line(/TICK/);
    await machine.pause();
    await new Promise((resolve) => setTimeout(resolve, 50));
    const quiet = console.lastTick;
    const { id, pauseMs } = await machine.save(store, SAVE);
    assert.equal(pauseMs, 0);
    assert.equal(machine.state, 'paused');
    assert.equal(console.lastTick, quiet);
    await machine.resume();
    await console.line(/TICK/);
    await machine.stop();
    await assert.rejects(machine.pause(), { code: 'MACHINE_GONE' });
    const [, restored] = await restore(store, id, console.loseTrack());
    await restored.line(/TICK/);
  });

  it('refuses a snapshot whose state or regions do not fit its machine', async () => {
    const store = new MemoryStore();
    const [machine] = await start(1, 64);
    const { id } = await machine.save(store, SAVE);
    const open = store.open(id);
    const changed = (metadata: object, regions = open.regions) => ({
      ...open,
      regions,
      metadata: { ...open.metadata, ...metadata },
    });
    const saved = open.metadata.machine as { config: object };
    for (const snapshot of [
      changed({ state: Buffer.from('{}') }),
      changed({ state: open.metadata.state.subarray(0, 5000) }),
      changed({ machine: null }),
      changed({ machine: { ...saved, config: { ...saved.config, cpus: 2 } } }),
      changed({}, [{ name: 'ram@0x0', sizeBytes: 4096 }]),
      changed({}, []),
    ]) {
      await assert.rejects(Machine.restore(snapshot, store.place), { code: 'BAD_STATE' });
    }
    await assert.rejects(Machine.restore(changed({ kind: 'file' }), store.place), { code: 'USAGE' });
    // Well-formed, but no processor can be in this state: long mode without PAE.
    const text = Buffer.from(open.metadata.state).toString();
    const absurd = text.replace(/"cr4":\{"\$u64":"0x[0-9a-f]+"\}/, '"cr4":{"$u64":"0x0"}');
    assert.notEqual(absurd, text);
    await assert.rejects(Machine.restore(changed({ state: Buffer.from(absurd) }), store.place), {
      code: 'BAD_STATE',
    });
  });

  it('reads only pages that were written since the last save', async () => {
    const store = new MemoryStore();
    const [machine, console] = await start(1, 64);
    await console.command('fill 5 16', /^OK/);
    await machine.save(store, SAVE);
    await console.line(/TICK/);
    await machine.save(store, SAVE);
    assert(store.pagesGiven < 200, `${store.pagesGiven} pages of an idle machine`);
    await console.command('fill 6 1', /^OK/);
    await machine.save(store, SAVE);
    assert(store.pagesGiven >= MIB / PAGE_BYTES && store.pagesGiven < 500, `${store.pagesGiven} pages`);
  });
});
