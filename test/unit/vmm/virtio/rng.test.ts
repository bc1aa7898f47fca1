import assert from 'node:assert/strict';
import { entropyDevice } from '../../../../src/vmm/virtio/rng.js';
import { DriverTwin, VirtioRig } from './driver-twin.js';

describe('VirtioRng', () => {
  let rig: VirtioRig;
  let driver: DriverTwin;
  beforeEach(() => {
    rig = VirtioRig.start(entropyDevice);
    driver = new DriverTwin(rig, { queueSize: 64 });
    driver.start();
  });
  afterEach(() => rig.close());

  const ask = (...writable: number[]): number => {
    const head = driver.send({ readable: [], writable });
    rig.hear();
    return head;
  };

  it('is an entropy device with one queue and no configuration', () => {
    assert.equal(rig.read(0x008), 4);
    assert.equal(driver.queues.length, 1);
    assert.equal(rig.read(0x100), 0);
  });

  it('fills every buffer with bytes that differ each time', () => {
    const seen = new Set<string>();
    for (let i = 0; i < 8; i++) {
      ask(40, 24);
      const [answer] = driver.collect();
      assert.equal(answer!.written.length, 64);
      seen.add(answer!.written.toString('hex'));
      seen.add(answer!.written.subarray(0, 40).toString('hex'));
    }
    assert.equal(seen.size, 16);
  });

  it('marks the pages that it has written', () => {
    ask(100);
    const { written } = driver.collect()[0]!;
    assert(written.some((byte) => byte !== 0));
    const words = new Int32Array(rig.ram.slots[0]!.written);
    const first = 0x20_0000 / 4096;
    const page = Array.from({ length: 512 }, (_, i) => first + i).find(
      (i) => (words[i >> 5]! >>> (i & 31)) & 1 && rig.ram.bytes(i * 4096, 100).equals(written),
    );
    assert(page !== undefined, 'the page of the answer is marked');
  });

  it('gives one request at most 4096 bytes', () => {
    ask(4096, 4096);
    assert.equal(driver.collect()[0]!.written.length, 4096);
  });

  it('answers a request without a writable buffer', () => {
    driver.send({ readable: [Uint8Array.of(1)], writable: [] });
    rig.hear();
    assert.equal(driver.collect()[0]!.written.length, 0);
  });

  it('gives at most 64 KiB in a period, and the rest in the next ones', () => {
    for (let i = 0; i < 40; i++) driver.send({ readable: [], writable: [4096] });
    rig.hear();
    assert.equal(driver.collect().length, 16);
    rig.machine.timers[0]!.expire();
    assert.equal(driver.collect().length, 16);
    rig.machine.timers[0]!.expire();
    assert.equal(driver.collect().length, 8);
    rig.machine.timers[0]!.expire();
    assert.equal(rig.machine.timers[0]!.delayMs, null, 'an idle device has no timer');
  });

  it('counts requests that take no bytes, so that they cannot keep the device thread busy', () => {
    const send = () => driver.send({ readable: [Uint8Array.of(1)], writable: [] });
    let answers = 0;
    for (let i = 0; i < 2000; i++) {
      send();
      rig.hear();
      const collected = driver.collect().length;
      if (collected === 0) break;
      answers += collected;
    }
    assert.equal(answers, 1024);
    rig.machine.timers[0]!.expire();
    assert.equal(driver.collect().length, 1);
  });

  it('begins a period with its first request, and later ones do not make it longer', () => {
    const [timer] = rig.machine.timers;
    ask(64);
    assert.equal(timer!.delayMs, 10);
    timer!.delayMs = 3;
    ask(64);
    assert.equal(timer!.delayMs, 3);
  });

  it('goes on with requests beyond the limit after a restore', () => {
    for (let i = 0; i < 20; i++) driver.send({ readable: [], writable: [4096] });
    rig.hear();
    rig.pause();
    const saved = rig.save();
    const restored = VirtioRig.restore(saved);
    saved.ram.close();
    driver.moveTo(restored);
    restored.resume();
    assert.equal(driver.collect().length, 20);
    restored.close();
  });

  it('does nothing for a period that ends while the machine is paused', () => {
    for (let i = 0; i < 20; i++) driver.send({ readable: [], writable: [4096] });
    rig.hear();
    driver.collect();
    rig.pause();
    rig.machine.timers[0]!.expire();
    assert.equal(rig.takeInterrupt(), false);
    rig.resume();
    assert.equal(driver.collect().length, 4);
  });
});
