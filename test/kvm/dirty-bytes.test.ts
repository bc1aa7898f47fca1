/** How much of a machine has changed since its last save. Counting it must not disturb the saves. */
import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { Machine } from '../../src/vmm/machine.js';
import { limit } from '../timeouts.js';
import { GuestConsole } from './guest-console.js';
import { probe, requireKvm } from './kvm.js';
import { MemoryStore } from './memory-store.js';

const MIB = 1 << 20;
const SAVE = { vm: 'test', tags: [], then: null } as const;
const ZEROS = new Uint8Array(PAGE_BYTES);

describe('what has changed of a machine since its last save', function () {
  this.timeout(limit(120_000));
  let machine: Machine;
  let console: GuestConsole;

  before(function () {
    requireKvm(this);
  });
  beforeEach(async () => {
    machine = await Machine.create({
      ...{ kernel: probe('probe.bzImage'), initrd: null, cmdline: null },
      ...{ memoryBytes: 64 * MIB, cpus: 2 },
    });
    console = new GuestConsole(machine);
    await machine.resume();
    await console.line(/^PROBE READY /);
  });
  afterEach(() => machine?.stop());

  /** Appends pages of noise, and pauses. */
  async function fill(seed: number, mib: number): Promise<void> {
    await machine.resume();
    await console.command(`fill ${seed} ${mib}`, /^OK/);
    await machine.pause();
  }

  /** How much of it has changed; it is counted twice. */
  function counted(): number {
    const bytes = machine.countDirtyBytes();
    assert.equal(machine.countDirtyBytes(), bytes, 'counting changes nothing');
    return bytes!;
  }

  const about = (bytes: number, mib: number): void =>
    assert(bytes >= mib * MIB && bytes < (mib + 1) * MIB, `${bytes} bytes are not about ${mib} MiB`);

  /** Saves the paused machine to a store, and checks that it gets exactly what has changed. */
  async function save(store: MemoryStore, changedBytes: number): Promise<string> {
    const { id, parent } = await machine.save(store, SAVE);
    assert.notEqual(parent, null);
    assert.equal(store.pagesGiven * PAGE_BYTES, changedBytes);
    assert.equal(machine.countDirtyBytes(), 0);
    return id;
  }

  /** Checks a snapshot against all of RAM, which a new store gets. The machine is paused. */
  async function equalsRam(store: MemoryStore, id: string): Promise<void> {
    const whole = new MemoryStore('/whole');
    const full = await machine.save(whole, SAVE);
    assert.equal(full.parent, null);
    const [actual, expected] = [store, whole].map(
      (each) => each.snapshots.get(each === store ? id : full.id)!,
    );
    expected!.pages.forEach((pages, region) => {
      const saved = actual!.pages[region]!;
      for (const page of new Set([...pages.keys(), ...saved.keys()]))
        assert(
          Buffer.from(saved.get(page) ?? ZEROS).equals(pages.get(page) ?? ZEROS),
          `page ${page} is not as in RAM`,
        );
    });
  }

  it('is known from the first save, and is what the next save stores, of two stores in turn', async () => {
    const [a, b] = [new MemoryStore('/a'), new MemoryStore('/b')];
    assert.equal(machine.countDirtyBytes(), null);
    await machine.save(a, SAVE);
    await machine.pause();
    await machine.save(b, SAVE);
    assert.equal(counted(), 0);
    await fill(5, 4);
    const first = counted();
    about(first, 4);
    await equalsRam(b, await save(b, first));
    await fill(6, 2);
    const second = counted();
    about(second, 2);
    const { id } = await machine.save(a, SAVE);
    assert(a.pagesGiven * PAGE_BYTES >= 6 * MIB, 'the other store lacks both');
    assert.equal(counted(), 0);
    await equalsRam(a, id);
    await fill(7, 1);
    about(counted(), 1);
    await equalsRam(b, (await machine.save(b, SAVE)).id);
    assert(b.pagesGiven * PAGE_BYTES >= 3 * MIB && b.pagesGiven * PAGE_BYTES < 5 * MIB, `${b.pagesGiven}`);
    assert.equal(counted(), 0);
  });

  it('includes what a failed save has found', async () => {
    const store = new MemoryStore();
    await machine.save(store, SAVE);
    await fill(5, 4);
    const changed = counted();
    store.failAfterPages = 1;
    await assert.rejects(machine.save(store, SAVE), /disk is full/);
    assert.equal(counted(), changed);
    await equalsRam(store, await save(store, changed));
  });

  it('may be counted at any moment of a save without harm', async () => {
    const store = new MemoryStore();
    await machine.save(store, SAVE);
    await console.command('dirty 20000', /^OK/);
    const counts: (number | null)[] = [];
    const count = setInterval(() => counts.push(machine.countDirtyBytes()), 1);
    store.betweenBatches = async () => {
      counts.push(machine.countDirtyBytes());
      await setTimeout(1);
    };
    try {
      for (let i = 0; i < 20; i++) await machine.save(store, SAVE);
      await machine.pause();
      const { id } = await machine.save(store, SAVE);
      await equalsRam(store, id);
    } finally {
      clearInterval(count);
    }
    assert(counts.length > 20 && counts.some((bytes) => bytes !== null && bytes > 0), `${counts}`);
  });

  it('is what a restored machine has written', async () => {
    const store = new MemoryStore();
    const { id } = await machine.save(store, { ...SAVE, then: 'pause' });
    await machine.stop();
    machine = await Machine.restore(store.open(id), store.place);
    console = new GuestConsole(machine, console);
    const restored = counted();
    assert(restored < MIB, `${restored} bytes`);
    await fill(5, 4);
    about(counted() - restored, 4);
    const last = machine.countDirtyBytes();
    await machine.stop();
    assert.equal(machine.countDirtyBytes(), last, 'it has ended');
  });
});
