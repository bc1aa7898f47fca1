/** KVM's dirty log lacks what devices write to guest memory. Saves must find these pages all the same. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { BitSet } from '../../src/bit-set.js';
import { closeMachine, createMachine, type KvmMachine, setMemorySlot } from '../../src/native/kvm.js';
import { closeMemory, createMemory, dataRanges, writePages } from '../../src/native/memory.js';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { describeHost } from '../../src/vmm/kvm/host.js';
import { createVm, type MemorySlot } from '../../src/vmm/kvm/vm.js';
import { DirtyPages } from '../../src/vmm/memory/dirty-pages.js';
import { GuestRam } from '../../src/vmm/memory/guest-memory.js';
import { MomentPages } from '../../src/vmm/memory/moment-pages.js';
import { RamSource } from '../../src/vmm/memory/ram-source.js';
import { SharedBits } from '../../src/vmm/memory/shared-bits.js';
import { requireKvm } from './kvm.js';
import { MemoryStore } from './memory-store.js';

const MIB = 1 << 20;
const HIGH_GPA = 0x1_0000_0000;
const METADATA = {
  kind: 'machine',
  vm: 'test',
  tags: [],
  memoryBytes: 3 * MIB,
  diskBytes: 0,
  machine: null,
  host: { kvm: 'unknown', hostname: '', kernel: '', arch: '' },
  state: new Uint8Array(0),
} as const;

const allocate = (): MemorySlot[] =>
  [
    { gpa: 0, sizeBytes: 2 * MIB },
    { gpa: HIGH_GPA, sizeBytes: MIB },
  ].map((slot) => ({
    ...slot,
    memory: createMemory(slot.sizeBytes),
    written: SharedBits.allocate(slot.sizeBytes / PAGE_BYTES),
  }));

/** Every page that is not a hole. */
function dataPages({ sizeBytes, memory }: MemorySlot): BitSet {
  const pages = new BitSet(sizeBytes / PAGE_BYTES);
  for (const { offset, length } of dataRanges(memory))
    pages.addRange(offset / PAGE_BYTES, length / PAGE_BYTES);
  return pages;
}

function copyOf(pages: BitSet): BitSet {
  const copy = new BitSet(pages.size);
  copy.addAll(pages);
  return copy;
}

describe('a page that a device has written', () => {
  let slots: MemorySlot[] = [];
  let machine: KvmMachine | null = null;
  let ram: GuestRam;
  let dirty: DirtyPages;
  let store: MemoryStore;

  before(function () {
    requireKvm(this);
  });
  beforeEach(() => {
    slots = allocate();
    machine = createVm(describeHost(), 1, slots, false);
    ram = new GuestRam(slots);
    dirty = new DirtyPages(machine, slots, [], false);
    store = new MemoryStore();
  });
  afterEach(() => {
    if (machine !== null) closeMachine(machine);
    machine = null;
    for (const { memory } of slots.splice(0)) closeMemory(memory);
  });

  /** Saves. `atMoment` is called when the vCPUs are parked. */
  async function save(atMoment = (): void => {}): Promise<string> {
    const regions = slots.map(({ gpa, sizeBytes }) => ({ name: `ram@0x${gpa.toString(16)}`, sizeBytes }));
    const base = dirty.baseIn(store.key);
    const session = await store.beginSave({
      regions: regions.map(({ name }) => ({
        region: name,
        bases: base === null ? [] : [{ snapshot: base, region: name }],
      })),
    });
    dirty.begin();
    const source = new RamSource({
      regions,
      slots,
      pending:
        base === null ? slots.map(dataPages) : dirty.since(store.key)!.slice(0, slots.length).map(copyOf),
      harvest: () => dirty.harvest().slice(0, slots.length),
      capture: async (pending, room) => {
        atMoment();
        const written = dirty.harvest().slice(0, slots.length);
        const pages = new MomentPages(slots, pending, room);
        pages.copy(written);
        return { written, aside: pages.aside };
      },
    });
    await session.store(source);
    const { id } = await session.commit(METADATA);
    dirty.commit(store.key, id);
    return id;
  }

  /** Reads from a new machine's memory, filled from the snapshot. */
  async function restored(id: string, gpa: number, length: number): Promise<string> {
    const fresh = allocate();
    try {
      const snapshot = store.open(id);
      await snapshot.fill({
        regions: snapshot.regions,
        write: ({ region, pages }, bytes) => writePages(fresh[region]!.memory, pages, bytes),
      });
      const into = Buffer.alloc(length);
      new GuestRam(fresh).read(gpa, into);
      return into.toString('latin1');
    } finally {
      for (const { memory } of fresh) closeMemory(memory);
    }
  }

  it('is in the next incremental save, with no other page', async () => {
    ram.write(0x1000, Buffer.from('loaded at boot'));
    const first = await save();
    assert.equal(await restored(first, 0x1000, 14), 'loaded at boot');

    ram.write(0x2ffe, Buffer.from('two pages'));
    ram.write(HIGH_GPA + 0x5000, Buffer.from('above the hole'));
    const second = await save();
    assert.equal(store.pagesGiven, 3);
    assert.equal(await restored(second, 0x1000, 14), 'loaded at boot');
    assert.equal(await restored(second, 0x2ffe, 9), 'two pages');
    assert.equal(await restored(second, HIGH_GPA + 0x5000, 14), 'above the hole');

    await save();
    assert.equal(store.pagesGiven, 0, 'a page is saved once');
  });

  it('is in the save when it is written between the last round and the pause', async () => {
    await save();
    const id = await save(() => ram.write(0x3000, Buffer.from('just in time')));
    assert.equal(await restored(id, 0x3000, 12), 'just in time');
  });

  it('is counted until it is saved, and counting it changes nothing', async () => {
    const BLOCKS = 100;
    const written = SharedBits.allocate(BLOCKS);
    dirty = new DirtyPages(machine!, slots, [{ blocks: BLOCKS, written }], false);
    ram.write(0x1000, Buffer.from('before the first save'));
    assert.equal(dirty.count(), null);
    await save();
    assert.equal(dirty.count(), 0);
    ram.write(0x2ffe, Buffer.from('two pages'));
    ram.write(HIGH_GPA + 0x5000, Buffer.from('above the hole'));
    new SharedBits(written).addRange(31, 4);
    for (let i = 0; i < 3; i++) assert.equal(dirty.count(), 7);
    dirty.harvest();
    assert.equal(dirty.count(), 7, 'what was fetched and not saved');
    ram.write(0x2000, Buffer.from('one of them again'));
    assert.equal(dirty.count(), 7);
    await save();
    assert.equal(store.pagesGiven, 3);
    assert.equal(dirty.count(), 0);
  });

  it('is not counted where KVM clears a log that is read', async () => {
    const other = createMachine({ trappedMsr: null, readsLog: false, steps: [] });
    try {
      slots.forEach((slot, i) => {
        setMemorySlot(other, i, { ...slot, logDirty: false });
      });
      dirty = new DirtyPages(other, slots, [], false);
      await save();
      ram.write(0x6000, Buffer.from('saved all the same'));
      assert.equal(dirty.count(), null);
      const id = await save();
      assert.equal(store.pagesGiven, 1);
      assert.equal(await restored(id, 0x6000, 18), 'saved all the same');
    } finally {
      closeMachine(other);
    }
  });

  it('is in the next save when a save fails', async () => {
    await save();
    ram.write(0x4000, Buffer.alloc(2 * PAGE_BYTES, 'kept'));
    store.failAfterPages = 1;
    await assert.rejects(save(), /disk is full/);
    const id = await save();
    assert.equal(store.pagesGiven, 2);
    assert.equal(await restored(id, 0x5000, 4), 'kept');
  });

  it('is in the next save when another thread has written it', async () => {
    await save();
    const worker = new Worker(new URL('./write-ram-worker.js', import.meta.url), {
      workerData: { slots, gpa: HIGH_GPA + 0x7000, text: 'from the device thread' },
    });
    await once(worker, 'exit');
    const id = await save();
    assert.equal(store.pagesGiven, 1);
    assert.equal(await restored(id, HIGH_GPA + 0x7000, 22), 'from the device thread');
  });
});
