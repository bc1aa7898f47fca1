import assert from 'node:assert/strict';
import { BitSet } from '../../../../src/bit-set.js';
import { dataRanges } from '../../../../src/native/memory.js';
import { SharedBits } from '../../../../src/vmm/memory/shared-bits.js';
import { balloonDevice } from '../../../../src/vmm/virtio/balloon.js';
import { DriverTwin, VirtioRig } from './driver-twin.js';

const PAGE = 4096;
const PAGE_REPORTING = 1n << 5n;
const REPORTING = 2;
/** Pages that the driver's rings and buffers do not use. */
const FREE_GPA = 0x40_0000;
const CONFIG = 0x100;

describe('VirtioBalloon', () => {
  let rig: VirtioRig;
  let driver: DriverTwin;
  beforeEach(() => {
    rig = VirtioRig.start(balloonDevice);
    driver = new DriverTwin(rig, { queueSize: 64 });
    driver.start(PAGE_REPORTING);
  });
  afterEach(() => rig.close());

  const ram = () => driver.rig.ram.ram;
  const fill = (gpa: number, bytes: number): void => ram().write(gpa, new Uint8Array(bytes).fill(0xaa));
  const answered = (): number => ram().load16(driver.queues[REPORTING]!.usedRing + 2);
  /** Reports ranges in one chain of the reporting queue, from the descriptor `head` on, without the doorbell. */
  function offer(ranges: readonly { gpa: number; length: number }[], head = 0): void {
    const queue = driver.queues[REPORTING]!;
    ranges.forEach(({ gpa, length }, i) => {
      const bytes = Buffer.alloc(16);
      bytes.writeBigUInt64LE(BigInt(gpa), 0);
      bytes.writeUInt32LE(length, 8);
      const isLast = i + 1 === ranges.length;
      bytes.writeUInt16LE(2 | (isLast ? 0 : 1), 12);
      bytes.writeUInt16LE(isLast ? 0 : head + i + 1, 14);
      ram().write(queue.descriptorTable + (head + i) * 16, bytes);
    });
    queue.makeAvailable(head);
  }
  function report(...ranges: { gpa: number; length: number }[]): void {
    offer(ranges);
    driver.queues[REPORTING]!.kick();
    driver.rig.hear();
  }
  /** The first and the last byte that is allocated between two addresses. */
  const allocated = (from: number, to: number): number =>
    dataRanges(driver.rig.ram.slots[0]!.memory).reduce(
      (sum, { offset, length }) => sum + Math.max(0, Math.min(to, offset + length) - Math.max(from, offset)),
      0,
    );

  it('is a balloon with three queues, which asks for no page', () => {
    assert.equal(rig.read(0x008), 5);
    assert.equal(driver.queues.length, 3);
    assert.equal(rig.read(CONFIG), 0);
  });

  it('gives the whole pages of a report back to the host, and nothing beside them', () => {
    fill(FREE_GPA, 16 * PAGE);
    report({ gpa: FREE_GPA + PAGE, length: 4 * PAGE }, { gpa: FREE_GPA + 8 * PAGE - 1, length: 3 * PAGE });
    assert.equal(answered(), 1);
    assert.equal(allocated(FREE_GPA, FREE_GPA + 16 * PAGE), (16 - 4 - 2) * PAGE);
    const bytes = rig.ram.bytes(FREE_GPA, 16 * PAGE);
    for (let page = 0; page < 16; page++) {
      const isFree = (page >= 1 && page < 5) || page === 8 || page === 9;
      const expected = Buffer.alloc(PAGE, isFree ? 0 : 0xaa);
      assert(bytes.subarray(page * PAGE, (page + 1) * PAGE).equals(expected), `page ${page}`);
    }
  });

  it('has the next save include the pages', () => {
    fill(FREE_GPA, 4 * PAGE);
    const { written, sizeBytes } = rig.ram.slots[0]!;
    new SharedBits(written).moveTo(new BitSet(sizeBytes / PAGE));
    report({ gpa: FREE_GPA + PAGE, length: 2 * PAGE });
    const pages = new BitSet(sizeBytes / PAGE);
    new SharedBits(written).moveTo(pages);
    const first = FREE_GPA / PAGE;
    assert.deepEqual(
      [0, 1, 2, 3].map((page) => pages.has(first + page)),
      [false, true, true, false],
    );
  });

  it('does a limited amount at once, and the rest in later turns', () => {
    for (let head = 0; head < 3; head++)
      offer(
        Array.from({ length: 20 }, () => ({ gpa: 0x20_0000, length: 2 << 20 })),
        head * 20,
      );
    // The rings of the driver lie below, its buffers within: no answer needs them.
    driver.queues[REPORTING]!.kick();
    rig.hear();
    assert.equal(answered(), 2, '64 MiB, and what is left of the request');
    assert.equal(rig.machine.timers[0]!.delayMs, 0);
    rig.machine.timers[0]!.expire();
    assert.equal(answered(), 3);
    assert.equal(rig.machine.timers[0]!.delayMs, null);
  });

  it('takes what the driver puts into the other queues, and does nothing with it', () => {
    fill(FREE_GPA, PAGE);
    const list = Buffer.alloc(4);
    list.writeUInt32LE(FREE_GPA / PAGE);
    for (const queue of [0, 1]) driver.send({ readable: [list], writable: [] }, queue);
    rig.hear();
    assert.equal(driver.collect().length, 2);
    assert.equal(rig.ram.bytes(FREE_GPA, 1)[0], 0xaa);
  });

  it('refuses a report of addresses outside RAM', () => {
    report({ gpa: 0xd000_0000, length: PAGE });
    assert.equal(answered(), 0);
    assert.equal(rig.read(0x070) & 0x40, 0x40, 'DEVICE_NEEDS_RESET');
  });

  it('keeps what the driver wrote to its configuration over a restore, until it is reset', () => {
    rig.write(CONFIG + 4, 7);
    rig.write(CONFIG, 9);
    assert.deepEqual([rig.read(CONFIG), rig.read(CONFIG + 4)], [0, 7]);
    const restored = VirtioRig.restore(rig.save());
    driver.moveTo(restored);
    assert.equal(restored.read(CONFIG + 4), 7);
    restored.resume();
    fill(FREE_GPA, PAGE);
    report({ gpa: FREE_GPA, length: PAGE });
    assert.equal(restored.ram.bytes(FREE_GPA, 1)[0], 0);
    restored.write(0x070, 0);
    assert.equal(restored.read(CONFIG + 4), 0);
    restored.close();
  });
});
