import assert from 'node:assert/strict';
import { GENERATION_ID_GPA, GENERATION_IRQ } from '../../../../src/vmm/devices/ports.js';
import { generationId } from '../../../../src/vmm/devices/vmgenid.js';
import type { DmaMemory } from '../../../../src/vmm/memory/guest-memory.js';
import { FakeMachine } from './fakes.js';

/** A machine whose memory takes only the 16 bytes of the ID. */
class Host extends FakeMachine {
  id = '';
  writes = 0;

  constructor() {
    const untouched = new FakeMachine().memory;
    const memory: DmaMemory = {
      ...untouched,
      write: (gpa, bytes) => {
        assert.deepEqual([gpa, bytes.length], [GENERATION_ID_GPA, 16]);
        this.id = Buffer.from(bytes).toString('base64');
        this.writes++;
      },
    };
    super(memory);
  }

  get interrupts(): number {
    return this.pulses.get(GENERATION_IRQ) ?? 0;
  }
}

const saved = (id: string) => generationId.state({ device: 'vmgenid', version: 1, id }, 'state');

describe('the VM generation ID', () => {
  it('of a new machine is in its memory, and interrupts nobody', () => {
    const [first, second] = [new Host(), new Host()];
    for (const host of [first, second]) {
      const device = generationId.create(host);
      device.resume();
      assert.equal(device.save().id, host.id);
      assert.equal(host.interrupts, 0);
    }
    assert.notEqual(first.id, second.id);
  });

  it('is new after each restore, before the guest runs, and the guest is interrupted once', () => {
    const original = new Host();
    const state = generationId.create(original).save();
    const ids = new Set([original.id]);
    for (let restore = 1; restore <= 3; restore++) {
      const host = new Host();
      const device = generationId.restore(host, saved(state.id));
      assert.equal(host.writes, 1);
      assert.equal(host.interrupts, 0, 'not before the vCPUs run');
      ids.add(host.id);
      assert.equal(ids.size, 1 + restore);
      assert.equal(device.save().id, host.id);
      for (let pause = 0; pause < 3; pause++) {
        device.resume();
        device.suspend();
        device.freeze();
      }
      assert.deepEqual([host.writes, host.interrupts], [1, 1]);
    }
  });

  it('tells a guest that was saved before it was told', () => {
    const first = new Host();
    const untold = generationId.restore(first, generationId.create(new Host()).save());
    const second = new Host();
    generationId.restore(second, untold.save()).resume();
    assert.equal(second.interrupts, 1);
    assert.notEqual(second.id, first.id);
  });

  it('refuses a state that has no ID of 16 bytes', () => {
    const id = Buffer.alloc(16).toString('base64');
    assert.deepEqual(saved(id), { device: 'vmgenid', version: 1, id });
    for (const wrong of ['', id.slice(4), Buffer.alloc(17).toString('base64'), '!'.repeat(24)])
      assert.throws(() => saved(wrong), /id is not 16 bytes in base64/);
    assert.throws(() => generationId.state({ device: 'vmgenid', version: 2, id }, 'state'), /version/);
  });
});
