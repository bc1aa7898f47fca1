import assert from 'node:assert/strict';
import { BitSet } from '../../../../src/bit-set.js';
import { SharedBits } from '../../../../src/vmm/memory/shared-bits.js';
import { Register } from '../../../../src/vmm/virtio/mmio-transport.js';
import { NetFeature, NetQueue, NetStatus } from '../../../../src/vmm/virtio/net.js';
import { type Answer, type DriverOptions, DriverTwin, RAM_BYTES, VirtioRig } from './driver-twin.js';
import { FakeNetwork, frameOf, HEADER, MAC } from './net-rig.js';

const F = NetFeature;
const CONTROL = F.CTRL_VQ | F.GUEST_ANNOUNCE | F.STATUS;
const OFFLOADS = F.CSUM | F.GUEST_CSUM | F.GUEST_TSO4 | F.GUEST_TSO6 | F.CTRL_GUEST_OFFLOADS;
const NO_HEADER = new Uint8Array(HEADER);

describe('VirtioNet', () => {
  let network: FakeNetwork;
  let rig: VirtioRig;
  let driver: DriverTwin;
  const others: FakeNetwork[] = [];

  function start(
    features: bigint,
    { isStream = false, ...options }: DriverOptions & { isStream?: boolean } = {},
  ): void {
    network = new FakeNetwork({ isStream });
    rig = VirtioRig.start(network.descriptor({ offloads: !isStream }));
    driver = new DriverTwin(rig, { queueSize: 64, ...options });
    driver.start(features);
    rig.hear();
  }

  afterEach(() => {
    rig.close();
    network.close();
    for (const each of others.splice(0)) each.close();
  });

  const offer = (...writable: number[]): number => {
    const head = driver.send({ readable: [], writable }, NetQueue.receive);
    rig.hear();
    return head;
  };
  const transmit = (...readable: Uint8Array[]): void => {
    driver.send({ readable, writable: [] }, NetQueue.transmit);
    rig.hear();
  };
  const command = (...bytes: number[]): number => {
    driver.send({ readable: [Uint8Array.from(bytes)], writable: [1] }, NetQueue.control);
    rig.hear();
    return driver.collect()[0]!.written[0]!;
  };
  const status = (): number => rig.read(Register.config + 6, 2);
  /** The frames in answers, each with its header. */
  function framesOf(answers: readonly Answer[]): Buffer[] {
    const frames: Buffer[] = [];
    for (let i = 0; i < answers.length; ) {
      const count = answers[i]!.written.readUInt16LE(10);
      frames.push(Buffer.concat(answers.slice(i, i + count).map(({ written }) => written)));
      i += count;
    }
    return frames;
  }

  it('is a network device with an address, a link, and two queues of frames', () => {
    start(F.MAC | F.STATUS);
    assert.equal(rig.read(Register.deviceId), 1);
    const mac = Array.from({ length: 6 }, (_, i) => rig.read(Register.config + i, 1));
    assert.equal(Buffer.from(mac).toString('hex'), MAC.replaceAll(':', ''));
    assert.equal(status(), NetStatus.linkUp);
    assert.equal(driver.queues.length, 3);
  });

  it('never offers UFO or USO, and offloads only where the host has them', () => {
    start(0n);
    const features = (): bigint => {
      rig.write(Register.deviceFeaturesSel, 0);
      const low = rig.read(Register.deviceFeatures);
      rig.write(Register.deviceFeaturesSel, 1);
      return BigInt(low) | (BigInt(rig.read(Register.deviceFeatures)) << 32n);
    };
    const never = (1n << 10n) | (1n << 14n) | (1n << 54n) | (1n << 55n) | (1n << 56n);
    assert.equal(features() & never, 0n);
    assert.equal(features() & OFFLOADS, OFFLOADS);
    rig.close();
    rig = VirtioRig.start(network.descriptor({ offloads: false }));
    assert.equal(features() & OFFLOADS, 0n);
  });

  it('sends a frame with its header, from any number of buffers', () => {
    start(0n);
    const frame = frameOf(3000);
    const header = Uint8Array.of(1, 1, 0, 0, 0xa0, 5, 34, 0, 16, 0, 0, 0);
    transmit(header, frame.subarray(0, 1), frame.subarray(1, 1400), frame.subarray(1400));
    assert.deepEqual(network.read(), Buffer.concat([header, frame]));
    assert.equal(driver.collect().length, 1);
    const { sentFrames, sentBytes, sentDropped } = network.counters.traffic;
    assert.deepEqual([sentFrames, sentBytes, sentDropped], [1, 3000, 0]);
  });

  it('receives a frame into one buffer', () => {
    start(0n);
    offer(HEADER, 2000);
    network.deliver(frameOf(60));
    network.run(rig);
    const [answer] = driver.collect();
    assert.deepEqual(answer!.written.subarray(HEADER), frameOf(60));
    assert.equal(answer!.written.readUInt16LE(10), 1, 'num_buffers');
  });

  it('receives a long frame into as many buffers as it needs, and puts the others back', () => {
    start(F.MRG_RXBUF);
    for (let i = 0; i < 60; i++) offer(1500);
    network.deliver(frameOf(65_000, 2));
    network.deliver(frameOf(100, 3));
    network.run(rig);
    const answers = driver.collect();
    assert.equal(answers.length, Math.ceil((65_000 + HEADER) / 1500) + 1);
    const frames = framesOf(answers);
    assert.deepEqual(
      frames.map((bytes) => bytes.subarray(HEADER)),
      [frameOf(65_000, 2), frameOf(100, 3)],
    );
    rig.pause();
    const saved = rig.save();
    const core = (saved.state as unknown as { core: { queues: { heads: number[] }[] } }).core;
    assert.deepEqual(core.queues[0]!.heads, [], 'no receive buffer is in flight');
    saved.ram.close();
  });

  it('marks the pages that frames are written to, also those of a frame that did not fit', () => {
    start(F.MRG_RXBUF);
    const written = (): number[] => {
      const pages = new BitSet(RAM_BYTES / 4096);
      new SharedBits(rig.ram.slots[0]!.written).moveTo(pages);
      return [...pages];
    };
    const [first, second] = [offer(1500), offer(1500)];
    const bufferPage = (head: number): number =>
      Number(rig.ram.bytes(driver.queues[0]!.descriptorTable + head * 16, 8).readBigUInt64LE()) / 4096;
    const pages = [bufferPage(first), bufferPage(second)];
    written();
    network.deliver(frameOf(100));
    network.run(rig);
    const after = written();
    assert(after.includes(pages[0]!) && !after.includes(pages[1]!));
    network.deliver(frameOf(4000));
    network.run(rig);
    assert(written().includes(pages[1]!), 'a part of the frame is there');
  });

  it('keeps a frame that does not fit until the guest offers more buffers', () => {
    start(F.MRG_RXBUF);
    offer(1500);
    network.deliver(frameOf(4000));
    network.run(rig);
    assert.deepEqual(driver.collect(), []);
    offer(1500);
    assert.deepEqual(driver.collect(), []);
    offer(1500);
    assert.deepEqual(framesOf(driver.collect())[0]!.subarray(HEADER), frameOf(4000));
    assert.equal(network.counters.traffic.receivedDropped, 0);
  });

  it('does not read the link while the guest has no buffers', () => {
    start(F.MRG_RXBUF);
    for (let i = 0; i < 5; i++) network.deliver(frameOf(60 + i));
    network.run(rig);
    assert.deepEqual(rig.machine.watches[0]!.events, { read: false, write: false });
    for (let i = 0; i < 5; i++) offer(1600);
    assert.deepEqual(
      framesOf(driver.collect()).map(({ length }) => length - HEADER),
      [60, 61, 62, 63, 64],
    );
    assert.equal(rig.machine.watches[0]!.events.read, false);
  });

  it('drops and counts a frame that no buffer of the driver can ever hold', () => {
    start(0n);
    offer(1000);
    network.deliver(frameOf(2000));
    network.deliver(frameOf(70));
    network.run(rig);
    const [answer] = driver.collect();
    assert.deepEqual(answer!.written.subarray(HEADER), frameOf(70));
    assert.equal(network.counters.traffic.receivedDropped, 1);
    assert.equal(rig.machine.events.length, 1);
  });

  it('drops a frame that is longer than all buffers of the ring together', () => {
    start(F.MRG_RXBUF, { queueSize: 4, indirect: false });
    for (let i = 0; i < 4; i++) driver.send({ readable: [], writable: [500] });
    network.deliver(frameOf(5000));
    network.deliver(frameOf(90));
    rig.hear();
    assert.deepEqual(framesOf(driver.collect())[0]!.subarray(HEADER), frameOf(90));
    assert.equal(network.counters.traffic.receivedDropped, 1);
  });

  it('waits until the link is writable, and sends every frame once in its order', () => {
    start(0n);
    let offered = 0;
    while (!rig.machine.watches[0]!.events.write) transmit(NO_HEADER, frameOf(3000, offered++));
    for (let i = 0; i < 5; i++) transmit(NO_HEADER, frameOf(3000, offered++));
    const sent: Buffer[] = [];
    for (let idle = 0; idle < 3; ) {
      const frame = network.read();
      if (frame === null) {
        idle++;
        network.run(rig);
      } else sent.push(frame.subarray(HEADER));
    }
    assert.deepEqual(
      sent,
      Array.from({ length: offered }, (_, i) => frameOf(3000, i)),
    );
    assert.equal(network.counters.traffic.sentDropped, 0);
    assert.equal(rig.machine.watches[0]!.events.write, false);
  });

  it('does not save a frame that waits for the link as sent', () => {
    start(0n);
    let offered = 0;
    while (!rig.machine.watches[0]!.events.write) transmit(NO_HEADER, frameOf(3000, offered++));
    rig.pause();
    const saved = rig.save();
    const other = new FakeNetwork();
    others.push(other);
    const restored = VirtioRig.restore(saved, other.descriptor());
    saved.ram.close();
    restored.resume();
    const frames: Buffer[] = [];
    for (let frame = other.read(); frame; frame = other.read()) frames.push(frame);
    assert.deepEqual(frames.at(-1)!.subarray(HEADER), frameOf(3000, offered - 1));
    assert.equal(frames.length, 2, 'an announcement and the frame that was not sent');
    restored.close();
  });

  it('sends a bounded number of frames for one event, and continues afterwards', () => {
    start(0n, { queueSize: 256 });
    for (let i = 0; i < 100; i++) driver.send({ readable: [NO_HEADER, frameOf(60)], writable: [] }, 1);
    rig.hear();
    const count = (): number => network.counters.traffic.sentFrames;
    assert.equal(count(), 64);
    for (const timer of rig.machine.timers) timer.expire();
    assert.equal(count(), 100);
  });

  it('drops and counts frames that are too short or too long', () => {
    start(0n);
    transmit(frameOf(5));
    transmit(NO_HEADER);
    transmit(...Array.from({ length: 17 }, () => frameOf(4096)));
    assert.equal(driver.collect().length, 3);
    assert.equal(network.counters.traffic.sentDropped, 3);
    assert.equal(network.read(), null);
    transmit(NO_HEADER, frameOf(60));
    assert.equal(network.read()!.length, 72);
  });

  it('needs a reset after a transmit buffer that is writable, or a receive buffer that is readable', () => {
    for (const [queue, request] of [
      [NetQueue.transmit, { readable: [], writable: [64] }],
      [NetQueue.receive, { readable: [frameOf(64)], writable: [] }],
      [NetQueue.control, { readable: [Uint8Array.of(3, 0)], writable: [] }],
    ] as const) {
      start(CONTROL);
      driver.send(request, queue);
      rig.hear();
      assert.equal(rig.read(Register.status) & 64, 64);
      if (queue === NetQueue.control) break;
      rig.close();
      network.close();
    }
  });

  it('sets the offloads that the driver accepted, and changes them on command', () => {
    start(OFFLOADS | CONTROL);
    assert.deepEqual(network.offloads, [7]);
    assert.equal(command(5, 0, 2, 0, 0, 0, 0, 0, 0, 0), 0);
    assert.deepEqual(network.offloads, [7, 1]);
    assert.equal(command(5, 0, 0, 4, 0, 0, 0, 0, 0, 0), 1, 'UFO was not negotiated');
    assert.equal(command(1, 0, 2), 1, 'a class that does not exist');
    assert.deepEqual(network.offloads, [7, 1]);
    rig.pause();
    const saved = rig.save();
    const other = new FakeNetwork();
    others.push(other);
    const restored = VirtioRig.restore(saved, other.descriptor());
    saved.ram.close();
    assert.deepEqual(other.offloads, [1], 'restored on the new tap');
    restored.close();
    rig.resume();
    rig.write(Register.status, 0);
    assert.deepEqual(network.offloads, [7, 1, 0]);
  });

  it('announces itself after a restore until the driver has taken notice', () => {
    start(CONTROL);
    rig.pause();
    const saved = rig.save();
    const other = new FakeNetwork();
    others.push(other);
    rig.close();
    rig = VirtioRig.restore(saved, other.descriptor());
    saved.ram.close();
    driver.moveTo(rig);
    assert.equal(other.read(), null, 'not before the machine runs');
    rig.resume();
    const frame = other.read()!;
    assert.equal(frame.length, HEADER + 60);
    assert.equal(frame.subarray(HEADER, HEADER + 14).toString('hex'), 'ffffffffffff0200000000078035');
    for (let i = 0; i < 10; i++) for (const timer of rig.machine.timers) timer.expire();
    let announced = 1;
    while (other.read() !== null) announced++;
    assert.equal(announced, 5);
    assert.equal(status(), NetStatus.linkUp | NetStatus.announce);
    assert.equal(rig.read(Register.interruptStatus) & 2, 2);
    driver.collect();
    assert.equal(command(3, 0), 0);
    assert.equal(status(), NetStatus.linkUp);
  });

  it('has no link after a restore without one, and takes frames as dropped', () => {
    start(CONTROL);
    rig.pause();
    const saved = rig.save();
    rig.close();
    rig = VirtioRig.restore(saved, network.descriptor({ isConnected: false }));
    saved.ram.close();
    driver.moveTo(rig);
    rig.resume();
    assert.equal(rig.read(Register.interruptStatus) & 2, 2, 'the driver is told');
    driver.collect();
    assert.equal(status(), 0);
    transmit(NO_HEADER, frameOf(60));
    assert.equal(driver.collect().length, 1);
    assert.equal(network.counters.traffic.sentDropped, 1);
  });

  it('takes its link down when the other end is gone, whether or not it waits for frames', () => {
    for (const hasBuffers of [true, false]) {
      start(CONTROL);
      if (hasBuffers) offer(2000);
      else network.run(rig);
      network.hangUp();
      for (const { ready } of [...rig.machine.watches]) ready();
      assert.equal(status(), 0);
      assert.equal(rig.read(Register.interruptStatus) & 2, 2);
      assert.equal(rig.machine.watches.length, 0);
      assert.match(rig.machine.events[0]!, /net0: its network is gone/);
      if (!hasBuffers) break;
      rig.close();
      network.close();
    }
  });

  describe('on a stream', () => {
    it('frames what it sends, and does what the header asks for', () => {
      start(0n, { isStream: true });
      const frame = Buffer.alloc(60);
      frame.writeUInt16BE(0x1234, 40); // the sum of a pseudo-header, as the driver leaves it
      frame.writeUInt16BE(0xabcd, 50);
      transmit(Uint8Array.of(1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0), frame);
      const sent = network.read()!;
      assert.equal(sent.readUInt32BE(0), 60);
      let sum = 0;
      for (let i = 34; i < 60; i += 2) sum += sent.readUInt16BE(4 + i);
      while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
      // The complete sum replaced the one of the pseudo-header: together they are all ones.
      assert.equal((sum + 0x1234) % 0xffff, 0);
    });

    it('drops a frame whose checksum lies outside', () => {
      start(0n, { isStream: true });
      transmit(Uint8Array.of(1, 0, 0, 0, 0, 0, 34, 0, 40, 0, 0, 0), frameOf(60));
      transmit(Uint8Array.of(1, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0), frameOf(60));
      assert.equal(network.read(), null);
      assert.equal(network.counters.traffic.sentDropped, 2);
    });

    it('receives frames that arrive in pieces, and many at once', () => {
      start(F.MRG_RXBUF, { isStream: true });
      for (let i = 0; i < 30; i++) offer(1500);
      const frames = [frameOf(60, 1), frameOf(9000, 2), frameOf(14, 3)];
      const bytes = Buffer.concat(
        frames.flatMap((frame) => [Buffer.from([0, 0, frame.length >> 8, frame.length & 0xff]), frame]),
      );
      for (let at = 0; at < bytes.length; ) {
        const piece = at < 80 ? 1 : 4001;
        network.write(bytes.subarray(at, at + piece));
        network.run(rig);
        at += piece;
      }
      assert.deepEqual(
        framesOf(driver.collect()).map((each) => each.subarray(HEADER)),
        frames,
      );
    });

    it('sends every frame whole and in order when the stream is full', () => {
      start(0n, { isStream: true });
      let offered = 0;
      while (!rig.machine.watches[0]!.events.write) transmit(NO_HEADER, frameOf(3001, offered++));
      for (let i = 0; i < 5; i++) transmit(NO_HEADER, frameOf(3001, offered++));
      const pieces: Buffer[] = [];
      for (let idle = 0; idle < 3; ) {
        const piece = network.read();
        if (piece === null) {
          idle++;
          network.run(rig);
        } else pieces.push(piece);
      }
      const expected = Array.from({ length: offered }, (_, i) => [
        Buffer.from([0, 0, 3001 >> 8, 3001 & 0xff]),
        frameOf(3001, i),
      ]).flat();
      assert(Buffer.concat(pieces).equals(Buffer.concat(expected)));
    });

    it('takes its link down when the length of a frame is impossible', () => {
      for (const length of [0xffff_ffff, 13, 70_000]) {
        start(CONTROL, { isStream: true });
        offer(2000);
        const bytes = Buffer.alloc(100);
        bytes.writeUInt32BE(length);
        network.write(bytes);
        network.run(rig);
        assert.equal(status(), 0);
        assert.deepEqual(driver.collect(), []);
        if (length === 70_000) break;
        rig.close();
        network.close();
      }
    });
  });
});
