/** Machines that end while they are saved: the guest ends by itself, or the machine is stopped. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Machine } from '../../src/vmm/machine.js';
import { limit } from '../timeouts.js';
import { requireKvm } from './kvm.js';
import { MemoryStore } from './memory-store.js';
import { guestThatWaits } from './small-guests.js';

const SAVE = { vm: 'test', tags: [], then: null } as const;

/** How long the main thread is blocked, so that the device thread ends before the main thread learns it. */
const BUSY_MS = 300;

describe('a machine that ends during a save', function () {
  this.timeout(limit(60_000));
  const dir = mkdtempSync(join(tmpdir(), 'livesnap-test-'));
  const machines: Machine[] = [];
  let store: MemoryStore;

  before(function () {
    requireKvm(this);
  });
  beforeEach(() => {
    store = new MemoryStore();
  });
  afterEach(async () => {
    for (const machine of machines.splice(0)) await machine.stop();
  });
  after(() => rmSync(dir, { recursive: true }));

  async function start(end: 'reset' | 'failed'): Promise<Machine> {
    const machine = await Machine.create({
      kernel: guestThatWaits(join(dir, `${end}.elf`), end),
      initrd: null,
      cmdline: null,
      memoryBytes: 64 << 20,
      cpus: 1,
    });
    machines.push(machine);
    const ready = once(machine, 'console');
    await machine.resume();
    await ready;
    return machine;
  }

  const endGuest = (machine: Machine): void => machine.writeConsole(Buffer.from('x'));

  /** Ends the guest and waits until the main thread knows it. */
  async function endKnown(machine: Machine): Promise<void> {
    if (machine.end !== null) return;
    endGuest(machine);
    if (machine.end === null) await once(machine, 'end');
  }

  /** Ends the guest and continues before the main thread can know it. */
  async function endUnknown(machine: Machine): Promise<void> {
    if (machine.end !== null) return;
    endGuest(machine);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, BUSY_MS);
  }

  /** Tells the guest to end, and does not wait for it. */
  async function endSoon(machine: Machine): Promise<void> {
    if (machine.end === null) endGuest(machine);
  }

  async function assertGone(machine: Machine, saving: Promise<unknown>, message: RegExp): Promise<void> {
    await assert.rejects(saving, (error: Error & { code: string }) => {
      assert.equal(error.code, 'MACHINE_GONE', error.stack);
      assert.match(error.message, message);
      assert.equal(machine.state, 'stopped');
      return true;
    });
    for (const ask of [() => machine.save(store, SAVE), () => machine.pause(), () => machine.resume()])
      await assert.rejects(ask(), { code: 'MACHINE_GONE' });
    assert.throws(() => machine.writeConsole(Buffer.from('x')), { code: 'MACHINE_GONE' });
    assert.equal(machine.snapshot, null);
    assert.equal(store.snapshots.size, 0);
  }

  for (const [when, end] of [
    ['and the main thread knows it', endKnown],
    ['and the main thread cannot know it yet', endUnknown],
  ] as const) {
    for (const [kind, message] of [
      ['reset', /^the machine has ended$/],
      ['failed', /^the machine failed: .*0xc0000000/],
    ] as const) {
      it(`answers MACHINE_GONE (${kind}) when it ends before the save has begun, ${when}`, async () => {
        const machine = await start(kind);
        store.beforeBegin = () => end(machine);
        await assertGone(machine, machine.save(store, SAVE), message);
      });

      it(`answers MACHINE_GONE (${kind}) when it ends while pages are stored, ${when}`, async () => {
        const machine = await start(kind);
        store.betweenBatches = () => end(machine);
        await assertGone(machine, machine.save(store, SAVE), message);
      });
    }
  }

  it('answers MACHINE_GONE when it is stopped', async () => {
    for (const hook of ['beforeBegin', 'betweenBatches'] as const) {
      const machine = await start('reset');
      let stopped: Promise<void> | null = null;
      store = new MemoryStore();
      store[hook] = async () => {
        stopped ??= machine.stop();
      };
      await assertGone(machine, machine.save(store, SAVE), /^the machine has ended$/);
      await stopped;
      assert.equal(machine.end?.kind, 'stopped');
    }
  });

  it('answers MACHINE_GONE or is saved when it ends near the pause', async () => {
    for (let time = 0; time < 10; time++) {
      const machine = await start('reset');
      store = new MemoryStore();
      store.betweenBatches = () => endSoon(machine);
      const saved = await machine.save(store, SAVE).catch((error) => {
        assert.equal(error.code, 'MACHINE_GONE', error.stack);
        assert.equal(machine.state, 'stopped');
        return null;
      });
      if (saved) assert(store.snapshots.has(saved.id));
      if (machine.end === null) await once(machine, 'end');
      assert.equal(machine.end?.kind, 'reset');
    }
  });

  it('is saved when it ends after the moment of the snapshot', async () => {
    for (const end of [endKnown, endUnknown]) {
      const machine = await start('reset');
      store.beforeCommit = () => end(machine);
      const { id } = await machine.save(store, SAVE);
      if (machine.end === null) await once(machine, 'end');
      assert.equal(machine.end?.kind, 'reset');
      const restored = await Machine.restore(store.open(id), store.place);
      machines.push(restored);
      await restored.resume();
      assert.equal(restored.state, 'running');
    }
  });
});
