/** Guests that end at once, or that write faster than livesnap reads. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { Machine } from '../../src/vmm/machine.js';
import { MAX_ASIDE_PAGES } from '../../src/vmm/memory/moment-pages.js';
import { limit } from '../timeouts.js';
import { requireKvm } from './kvm.js';
import { MemoryStore } from './memory-store.js';
import {
  guestThatCounts,
  guestThatEnds,
  guestThatFails,
  guestThatFloods,
  guestThatSweeps,
} from './small-guests.js';

const MIB = 1 << 20;

describe('a machine', function () {
  this.timeout(limit(60_000));
  const dir = mkdtempSync(join(tmpdir(), 'livesnap-test-'));
  const machines: Machine[] = [];

  before(function () {
    requireKvm(this);
  });
  afterEach(async () => {
    for (const machine of machines.splice(0)) await machine.stop();
  });
  after(() => rmSync(dir, { recursive: true }));

  const create = async (kernel: string, memoryBytes = 64 * MIB): Promise<Machine> => {
    const machine = await Machine.create({
      kernel,
      initrd: null,
      cmdline: null,
      memoryBytes,
      cpus: 1,
    });
    machines.push(machine);
    return machine;
  };

  it('is paused until it is resumed, and emits its last output before its end', async () => {
    for (const [kernel, kind] of [
      [guestThatEnds(join(dir, 'ends.elf'), 'last words'), 'reset'],
      [guestThatFails(join(dir, 'fails.elf'), 'last words'), 'failed'],
    ] as const) {
      const machine = await create(kernel);
      assert.equal(machine.state, 'paused');
      let output = '';
      let outputAtEnd: string | null = null;
      machine.on('console', (bytes) => {
        output += Buffer.from(bytes).toString('latin1');
      });
      machine.on('end', () => {
        outputAtEnd = output;
      });
      await machine.resume();
      if (machine.end === null) await once(machine, 'end');
      assert.equal(machine.end?.kind, kind);
      assert.equal(machine.state, 'stopped');
      assert.equal(outputAtEnd, 'last words');
    }
  });

  it('fails with the bytes and address of an instruction that KVM cannot run', async () => {
    const machine = await create(guestThatCounts(join(dir, 'counts.elf')));
    await machine.resume();
    if (machine.end === null) await once(machine, 'end');
    const end = machine.end!;
    // Where the processor runs the guest's kernel mode, the guest gets as far as its triple fault.
    if (end.kind !== 'failed') assert.equal(end.kind, 'reset');
    else {
      assert.equal(end.error.code, 'MACHINE_FAILED');
      assert.match(end.error.message, /f3 48 0f b8 c3.* at 0x100000/);
    }
  });

  it('fails every operation with MACHINE_GONE at its end and after it', async () => {
    const kernel = guestThatEnds(join(dir, 'ends.elf'), 'last words');
    const store = new MemoryStore();
    const save = (machine: Machine) => machine.save(store, { vm: 'test', tags: [], then: null });
    for (let time = 0; time < 10; time++) {
      const machine = await create(kernel);
      const resumed = machine.resume();
      for (const ask of [save, (m: Machine) => m.pause(), (m: Machine) => m.resume(), save]) {
        await ask(machine).catch((error) => assert.equal(error.code, 'MACHINE_GONE', error.stack));
      }
      await resumed;
      if (machine.end === null) await once(machine, 'end');
      await assert.rejects(save(machine), { code: 'MACHINE_GONE' });
      await assert.rejects(machine.pause(), { code: 'MACHINE_GONE' });
      await assert.rejects(machine.resume(), { code: 'MACHINE_GONE' });
      assert.equal(machine.state, 'stopped');
    }
  });

  it('is saved as of one moment while its guest rewrites more memory than is copied aside', async () => {
    const [start, end] = [32 * MIB, 160 * MIB];
    const machine = await create(guestThatSweeps(join(dir, 'sweeps.elf'), start, end), 192 * MIB);
    await machine.resume();
    await once(machine, 'console');
    const store = new MemoryStore();
    const betweenBatches = store.betweenBatches;
    store.betweenBatches = async () => {
      // In two sweeps the guest writes every page during the round that has begun.
      store.betweenBatches = betweenBatches;
      await once(machine, 'console');
      await once(machine, 'console');
    };
    const { id, storedWhilePausedBytes } = await machine.save(store, { vm: 'test', tags: [], then: null });
    const swept = (end - start) / PAGE_BYTES;
    assert(storedWhilePausedBytes >= (swept - MAX_ASIDE_PAGES) * PAGE_BYTES, `${storedWhilePausedBytes}`);
    assert.equal(machine.state, 'running');
    await once(machine, 'console');
    // The guest counts in page after page, so at any moment the pages it has passed are ahead by one.
    const pages = store.snapshots.get(id)!.pages[0]!;
    const counts = Array.from({ length: swept }, (_, i) =>
      Buffer.from(pages.get(start / PAGE_BYTES + i)!).readUInt32LE(0),
    );
    const behind = counts.filter((count) => count === counts[0]).length;
    assert(counts.slice(0, behind).every((count) => count === counts[0]));
    assert(counts.slice(behind).every((count) => count === counts[0]! - 1));
  });

  it('gathers output into few messages while the main thread is busy', async () => {
    const machine = await create(guestThatFloods(join(dir, 'floods.elf')));
    let messages = 0;
    let bytes = 0;
    machine.on('console', (part) => {
      messages++;
      bytes += part.length;
    });
    await machine.resume();
    const sleeper = new Int32Array(new SharedArrayBuffer(4));
    // Without gathering, each line would be a message.
    while (bytes < 5000 && machine.end === null) {
      messages = 0;
      bytes = 0;
      Atomics.wait(sleeper, 0, 0, 500);
      await new Promise(setImmediate);
    }
    assert(bytes >= 5000);
    assert(messages < 500, `${bytes} bytes came in ${messages} messages`);
  });
});
