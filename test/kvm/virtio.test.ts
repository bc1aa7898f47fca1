/** A guest drives the entropy device through a real queue: doorbells, interrupts, and both over a restore. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { OpenSnapshot } from '../../src/page-stream.js';
import { Machine } from '../../src/vmm/machine.js';
import { limit } from '../timeouts.js';
import { requireKvm } from './kvm.js';
import { MemoryStore } from './memory-store.js';
import { guestThatAsksForRandom } from './virtio-guests.js';

const SAVE = { vm: 'test', tags: [], then: 'stop' } as const;

describe('a guest that asks the entropy device', function () {
  this.timeout(limit(60_000));
  let dir: string;
  const machines: Machine[] = [];

  before(function () {
    requireKvm(this);
    dir = mkdtempSync(join(tmpdir(), 'livesnap-virtio-'));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));
  afterEach(async () => {
    for (const machine of machines.splice(0)) await machine.stop();
  });

  /** Sends a byte and returns the output up to `end`. */
  async function send(machine: Machine, byte: string, end = '\n'): Promise<string> {
    machine.writeConsole(Buffer.from(byte));
    return output(machine, end);
  }

  async function output(machine: Machine, end = '\n'): Promise<string> {
    let text = '';
    while (!text.endsWith(end)) {
      const [bytes] = (await once(machine, 'console')) as [Uint8Array];
      text += Buffer.from(bytes).toString('latin1');
    }
    return text;
  }

  async function start(): Promise<Machine> {
    const machine = await Machine.create({
      kernel: guestThatAsksForRandom(join(dir, 'kernel')),
      initrd: null,
      cmdline: null,
      memoryBytes: 32 << 20,
      cpus: 1,
    });
    machines.push(machine);
    await machine.resume();
    return machine;
  }

  async function restore(snapshot: OpenSnapshot): Promise<Machine> {
    const machine = await Machine.restore(snapshot, new MemoryStore().place);
    machines.push(machine);
    return machine;
  }

  it('is answered and interrupted, again and again', async () => {
    const machine = await start();
    const answers = new Set<string>();
    for (let i = 0; i < 20; i++) {
      const answer = await send(machine, 'r');
      assert.match(answer, /^r[a-p]{64}\n$/);
      answers.add(answer);
    }
    assert.equal(answers.size, 20);
  });

  it('is answered after a pause and after a restore', async () => {
    const store = new MemoryStore();
    const machine = await start();
    await send(machine, 'r');
    await machine.pause();
    await machine.resume();
    await send(machine, 'r');
    const { id } = await machine.save(store, SAVE);
    const restored = await restore(store.open(id));
    await restored.resume();
    assert.match(await send(restored, 'r'), /^r[a-p]{64}\n$/);
  });

  it('is answered after a restore when its doorbell was lost', async () => {
    const store = new MemoryStore();
    const machine = await start();
    await send(machine, 'n', 'n');
    const { id } = await machine.save(store, SAVE);
    const restored = await restore(store.open(id));
    const answer = output(restored);
    await restored.resume();
    assert.match(await answer, /^[a-p]{64}\n$/);
  });

  it('is restored from a snapshot that was made before there was an entropy device', async () => {
    const store = new MemoryStore();
    const machine = await start();
    const { id } = await machine.save(store, SAVE);
    const snapshot = store.open(id);
    const { metadata } = snapshot;
    const state = JSON.parse(Buffer.from(metadata.state).toString());
    assert.deepEqual(Object.keys(state.devices.devices), ['com1', 'keyboard', 'rtc', 'pm', 'vmgenid', 'rng']);
    delete state.devices.devices.rng;
    delete state.devices.devices.vmgenid;
    const { config, ...others } = metadata.machine as { config: Record<string, unknown> };
    const { rng, vmgenid, ...older } = config;
    assert.deepEqual({ rng, vmgenid }, { rng: true, vmgenid: true });
    const restored = await restore({
      ...snapshot,
      metadata: {
        ...metadata,
        machine: { config: older, ...others },
        state: Buffer.from(JSON.stringify(state)),
      },
    });
    assert.equal(restored.config.rng, false);
    await restored.resume();
    const again = new MemoryStore();
    const saved = await restored.save(again, SAVE);
    const devices = JSON.parse(Buffer.from(again.open(saved.id).metadata.state).toString()).devices.devices;
    assert.deepEqual(Object.keys(devices), ['com1', 'keyboard', 'rtc', 'pm']);
  });
});
