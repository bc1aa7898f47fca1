/** The VM generation ID in the memory of machines that are saved, restored and cloned. */
import assert from 'node:assert/strict';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { GENERATION_ID_GPA } from '../../src/vmm/devices/ports.js';
import { Machine } from '../../src/vmm/machine.js';
import { limit } from '../timeouts.js';
import { probe, requireKvm } from './kvm.js';
import { MemoryStore } from './memory-store.js';

const SAVE = { vm: 'test', tags: [], then: 'resume' } as const;

describe('the VM generation ID of a machine', function () {
  this.timeout(limit(60_000));
  const machines: Machine[] = [];
  const store = new MemoryStore();

  before(function () {
    requireKvm(this);
  });
  afterEach(async () => {
    for (const machine of machines.splice(0)) await machine.stop();
  });

  async function running(made: Promise<Machine>): Promise<Machine> {
    const machine = await made;
    machines.push(machine);
    await machine.resume();
    return machine;
  }

  const start = (): Promise<Machine> =>
    running(
      Machine.create({
        kernel: probe('probe.elf'),
        initrd: null,
        cmdline: null,
        memoryBytes: 32 << 20,
        cpus: 1,
      }),
    );

  /** Saves a machine, and returns the ID that its memory and its device have in the snapshot. */
  async function saved(machine: Machine): Promise<{ snapshot: string; id: string }> {
    const { id: snapshot } = await machine.save(store, SAVE);
    const { pages, metadata } = store.snapshots.get(snapshot)!;
    const page = pages[0]!.get(GENERATION_ID_GPA / PAGE_BYTES)!;
    const id = Buffer.from(page.subarray(0, 16)).toString('base64');
    const { devices } = JSON.parse(Buffer.from(metadata.state).toString()).devices;
    assert.equal(devices.vmgenid.id, id, 'the device and the memory have the same');
    assert.ok(
      page.subarray(16).every((byte) => byte === 0),
      'nothing else is in its page',
    );
    return { snapshot, id };
  }

  it('stays the same over saves, and differs after each restore, also in the next snapshot', async () => {
    const machine = await start();
    const first = await saved(machine);
    assert.equal((await saved(machine)).id, first.id);
    const ids = new Set([first.id]);
    for (const asNew of [false, true]) {
      const restored = await running(Machine.restore(store.open(first.snapshot), { ...store.place, asNew }));
      ids.add((await saved(restored)).id);
    }
    assert.equal(ids.size, 3);
  });

  it('is required of a clone, but not of a restore', async () => {
    const snapshot = store.open((await saved(await start())).snapshot);
    const { metadata } = snapshot;
    const state = JSON.parse(Buffer.from(metadata.state).toString());
    delete state.devices.devices.vmgenid;
    const { config, ...others } = metadata.machine as { config: Record<string, unknown> };
    const { vmgenid, ...older } = config;
    assert.equal(vmgenid, true);
    const olderSnapshot = {
      ...snapshot,
      metadata: {
        ...metadata,
        machine: { config: older, ...others },
        state: Buffer.from(JSON.stringify(state)),
      },
    };
    await assert.rejects(Machine.restore(olderSnapshot, { ...store.place, asNew: true }), {
      code: 'USAGE',
      message: /has no VM generation ID/,
      hint: /without --as-new/,
    });
    const restored = await running(Machine.restore(olderSnapshot, store.place));
    assert.equal(restored.config.vmgenid, false);
    const { id } = await restored.save(store, SAVE);
    const again = JSON.parse(Buffer.from(store.snapshots.get(id)!.metadata.state).toString());
    assert.deepEqual(Object.keys(again.devices.devices), ['com1', 'keyboard', 'rtc', 'pm', 'rng']);
  });
});
