/** A restore compares the snapshot with this host before it makes anything. */
import assert from 'node:assert/strict';
import { LivesnapError } from '../../src/errors.js';
import type { OpenSnapshot, SnapshotMetadata } from '../../src/page-stream.js';
import { fitOf } from '../../src/vmm/fit/snapshot-fit.js';
import { profileOfThisHost } from '../../src/vmm/fit/this-host.js';
import { Machine } from '../../src/vmm/machine.js';
import { decodeMachineState, encodeMachineState } from '../../src/vmm/machine-state.js';
import { limit } from '../timeouts.js';
import { GuestConsole } from './guest-console.js';
import { probe, requireKvm } from './kvm.js';
import { MemoryStore } from './memory-store.js';

describe('restoring on a host that may not fit', function () {
  this.timeout(limit(120_000));
  const store = new MemoryStore();
  let id: string;

  before(async function () {
    requireKvm(this);
    const machine = await Machine.create({
      kernel: probe('probe.bzImage'),
      initrd: null,
      cmdline: null,
      memoryBytes: 64 << 20,
      cpus: 2,
    });
    const console = new GuestConsole(machine);
    await machine.resume();
    await console.line(/TICK/);
    ({ id } = await machine.save(store, { vm: 'test', tags: [], then: 'stop' }));
  });

  /** The snapshot with another description or state. `filled`: how often its RAM was asked for. */
  function changed(change: (metadata: SnapshotMetadata) => Partial<SnapshotMetadata>) {
    const snapshot = store.open(id);
    const asked = { filled: 0 };
    const open: OpenSnapshot = {
      ...snapshot,
      metadata: { ...snapshot.metadata, ...change(snapshot.metadata) },
      fill: async (sink) => {
        asked.filled++;
        await snapshot.fill(sink);
      },
    };
    return { open, asked };
  }

  it('finds nothing in a snapshot of a guest that ran here', () => {
    assert.deepEqual(fitOf(store.open(id).metadata, profileOfThisHost()), []);
  });

  it('restores a snapshot of an earlier version, which tells less about its host', async () => {
    const { open } = changed(() => ({ host: { kvm: 'unknown', hostname: 'a', kernel: '6.1', arch: 'x64' } }));
    const machine = await Machine.restore(open, store.place);
    assert.match(machine.notices.join('\n'), /^the kernel differs[^\n]*$/);
    await machine.stop();
  });

  it('is refused before RAM is filled, with everything that does not fit', async () => {
    const { open, asked } = changed(({ state }) => {
      const decoded = decodeMachineState(state);
      const vcpus = decoded.vcpus.map((vcpu) => ({
        ...vcpu,
        cpuid: vcpu.cpuid.map((entry) =>
          entry.function === 1 ? { ...entry, ecx: (entry.ecx | (1 << 16)) >>> 0 } : entry,
        ),
        msrs: [{ index: 0xdead, value: 1n }, ...vcpu.msrs],
      }));
      return { state: encodeMachineState({ ...decoded, vcpus }) };
    });
    await assert.rejects(Machine.restore(open, store.place), (error) => {
      assert(error instanceof LivesnapError);
      assert.equal(error.code, 'HOST_LACKS');
      assert.match(error.message, /processor features: it needs CPUID leaf 0x1 ECX bit 16 .*; .*0xdead/);
      return true;
    });
    assert.equal(asked.filled, 0);
  });

  it('leaves out MSRs that are 0 and that this host does not know', async () => {
    const { open } = changed(({ state }) => {
      const decoded = decodeMachineState(state);
      const vcpus = decoded.vcpus.map((vcpu) => ({
        ...vcpu,
        msrs: [{ index: 0xdead, value: 0n }, ...vcpu.msrs],
      }));
      return { state: encodeMachineState({ ...decoded, vcpus }) };
    });
    const machine = await Machine.restore(open, store.place);
    const console = new GuestConsole(machine);
    await machine.resume();
    await console.line(/TICK/);
    await machine.stop();
  });

  it('refuses a description of the host that is not one', async () => {
    const { open } = changed(() => ({ host: { kernel: 7 } }));
    await assert.rejects(
      Machine.restore(open, store.place),
      /the saved state is invalid: host\.kernel is not printable text/,
    );
  });
});
