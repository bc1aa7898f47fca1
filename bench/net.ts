/**
 * What the network device costs per frame: the time of the device thread from doorbell or readiness until the driver is
 * told, compared with the bare system call on the same socket. The difference is descriptors, rings and JavaScript. A
 * socket of frames stands for the tap, so no guest, no network stack and no root are needed.
 *
 *     npm run bench:net
 */
import { closeMemory, createMemory } from '../src/native/memory.js';
import { receiveFrame, sendFrame } from '../src/native/net.js';
import { NetFeature, NetQueue } from '../src/vmm/virtio/net.js';
import { DriverTwin, VirtioRig } from '../test/unit/vmm/virtio/driver-twin.js';
import { FakeNetwork, frameOf, HEADER } from '../test/unit/vmm/virtio/net-rig.js';

const ROUNDS = 7;
const TURNS = 400;
/** Frames between two looks of the driver. */
const BATCH = 2;
const CELL_BYTES = 4096;

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

interface Cost {
  readonly send: number;
  readonly receive: number;
}

/** Microseconds of the device per frame of `bytes`. */
function ofDevice(bytes: number): Cost {
  const network = new FakeNetwork();
  const rig = VirtioRig.start(network.descriptor());
  const driver = new DriverTwin(rig, { queueSize: 128 });
  driver.start(NetFeature.MRG_RXBUF);
  const frame = Buffer.concat([Buffer.alloc(HEADER), frameOf(bytes)]);
  const pieces: Buffer[] = [];
  for (let at = 0; at < frame.length; at += CELL_BYTES) pieces.push(frame.subarray(at, at + CELL_BYTES));
  let sendMs = 0;
  let receiveMs = 0;
  const fill = (): void => {
    while (driver.queues[NetQueue.receive]!.waiting.length < 100)
      driver.send({ readable: [], writable: [CELL_BYTES] }, NetQueue.receive);
    rig.hear();
  };
  for (let turn = 0; turn < TURNS; turn++) {
    for (let i = 0; i < BATCH; i++) driver.send({ readable: pieces, writable: [] }, NetQueue.transmit);
    let begun = performance.now();
    rig.hear();
    sendMs += performance.now() - begun;
    while (network.read() !== null) {}
    fill();
    for (let i = 0; i < BATCH; i++) network.deliver(frame.subarray(HEADER));
    begun = performance.now();
    network.run(rig);
    receiveMs += performance.now() - begun;
    driver.collect();
  }
  const { sentFrames, receivedFrames } = network.counters.traffic;
  if (sentFrames !== TURNS * BATCH || receivedFrames !== TURNS * BATCH)
    throw new Error(`${sentFrames} frames were sent and ${receivedFrames} received, not ${TURNS * BATCH}`);
  rig.close();
  network.close();
  return { send: (sendMs * 1000) / (TURNS * BATCH), receive: (receiveMs * 1000) / (TURNS * BATCH) };
}

/** Microseconds of the bare call per frame. */
function ofCall(bytes: number): Cost {
  const network = new FakeNetwork();
  const memory = createMemory(1 << 20);
  const count = Math.ceil((bytes + HEADER) / CELL_BYTES);
  const ranges = new Float64Array(4 * count);
  const last = bytes + HEADER - (count - 1) * CELL_BYTES;
  for (let i = 0; i < count; i++)
    ranges.set([memory, i * CELL_BYTES, i + 1 < count ? CELL_BYTES : last, i], 4 * i);
  let sendMs = 0;
  let receiveMs = 0;
  for (let turn = 0; turn < TURNS; turn++) {
    let begun = performance.now();
    for (let i = 0; i < BATCH; i++) sendFrame(network.port, ranges, count);
    sendMs += performance.now() - begun;
    while (network.read() !== null) {}
    for (let i = 0; i < BATCH; i++) network.deliver(frameOf(bytes));
    begun = performance.now();
    for (let i = 0; i < BATCH; i++) receiveFrame(network.port, ranges, count);
    receiveMs += performance.now() - begun;
  }
  network.close();
  closeMemory(memory);
  return { send: (sendMs * 1000) / (TURNS * BATCH), receive: (receiveMs * 1000) / (TURNS * BATCH) };
}

const row = (cells: readonly string[]): string => cells.map((cell) => cell.padStart(14)).join('');
// The compiler has seen all of it before the first round.
for (const bytes of [60, 60_000]) {
  ofDevice(bytes);
  ofCall(bytes);
}
console.log(row(['bytes', 'direction', 'device', 'bare call', '×', 'device GB/s']));
for (const bytes of [60, 1514, 16_000, 60_000]) {
  const device = Array.from({ length: ROUNDS }, () => ofDevice(bytes));
  const call = Array.from({ length: ROUNDS }, () => ofCall(bytes));
  for (const direction of ['send', 'receive'] as const) {
    const us = median(device.map((each) => each[direction]));
    const least = median(call.map((each) => each[direction]));
    const cells = [`${us.toFixed(1)} µs`, `${least.toFixed(1)} µs`, (us / least).toFixed(1)];
    console.log(row([`${bytes}`, direction, ...cells, (bytes / us / 1000).toFixed(2)]));
  }
}
