/** What `wait()` returns besides exits: doorbells and descriptors; and exits whose answer is held. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  addNotifier,
  attachDeviceThread,
  closeMachine,
  createIrq,
  EXIT_PAGE_BYTES,
  ExitWord,
  holdExit,
  type KvmMachine,
  raiseIrq,
  releaseExit,
  resumeVcpus,
  startVcpus,
  unwatchFd,
  WaitEvent,
  wait,
  watchFd,
} from '../../src/native/kvm.js';
import { readBoot } from '../../src/vmm/boot/boot-linux.js';
import { ExitReason } from '../../src/vmm/kvm/abi.js';
import { describeHost } from '../../src/vmm/kvm/host.js';
import { createVm, enterKernel } from '../../src/vmm/kvm/vm.js';
import { limit } from '../timeouts.js';
import { PlainRam } from '../unit/vmm/virtio/plain-ram.js';
import { requireKvm } from './kvm.js';
import { guestThatRings } from './virtio-guests.js';

const GPA = 0xd000_0050;
const DOORBELL = 77;
const PIPE = 78;

describe('wait()', function () {
  this.timeout(limit(60_000));
  let dir: string;
  let machine: KvmMachine;
  let plain: PlainRam;
  let words: Uint32Array;
  let data: Uint8Array;
  let fifo: number;

  before(function () {
    requireKvm(this);
    dir = mkdtempSync(join(tmpdir(), 'livesnap-wait-'));
    execFileSync('mkfifo', [join(dir, 'fifo')]);
  });
  after(() => rmSync(dir, { recursive: true, force: true }));
  beforeEach(() => {
    const host = describeHost();
    plain = new PlainRam([{ gpa: 0, sizeBytes: 32 << 20 }]);
    const plan = readBoot({
      kernelPath: guestThatRings(join(dir, 'kernel'), GPA),
      initrdPath: null,
      cmdline: '',
      memoryBytes: 32 << 20,
      cpus: 1,
      rngSeed: new Uint8Array(0),
      windows: [],
      vmgenid: false,
    });
    machine = createVm(host, 1, plain.slots, false);
    const page = new Uint8Array(EXIT_PAGE_BYTES);
    words = new Uint32Array(page.buffer, 0, 16);
    data = page.subarray(64);
    attachDeviceThread(machine, page);
    enterKernel(machine, host, { cpus: 1, slots: plain.slots, boot: plan.load(plain.ram) });
    startVcpus(machine);
    fifo = openSync(join(dir, 'fifo'), 'r+');
  });
  afterEach(() => {
    closeMachine(machine);
    plain.close();
    closeSync(fifo);
  });

  /** The next event that is not the test's own event loop. */
  async function next(timeoutMs = 10_000): Promise<number> {
    for (;;) {
      const event = wait(machine, timeoutMs);
      if (event !== WaitEvent.loop) return event;
      await nextTurn();
    }
  }

  /** The next exit's value. */
  async function exit(): Promise<number> {
    assert.equal(await next(), WaitEvent.exit);
    assert.equal(words[ExitWord.reason], ExitReason.MMIO);
    assert.equal(words[ExitWord.addressLow], GPA);
    return data[0]!;
  }

  it('returns exits for writes that have no notifier', async () => {
    resumeVcpus(machine);
    assert.deepEqual([await exit(), await exit(), await exit(), await exit()], [1, 2, 1, 2]);
  });

  it('returns the token of a notifier instead of an exit, for its value only', async () => {
    addNotifier(machine, { gpa: GPA, queue: 1, token: DOORBELL });
    resumeVcpus(machine);
    let [doorbells, exits] = [0, 0];
    while (doorbells < 20 || exits < 20) {
      if ((await next()) === WaitEvent.ready) {
        assert.equal(words[ExitWord.token], DOORBELL);
        doorbells++;
      } else {
        assert.equal(data[0], 2);
        exits++;
      }
    }
  });

  it('returns a watched descriptor for as long as it is ready', async () => {
    watchFd(machine, fifo, PIPE, { read: true, write: false });
    assert.equal(await next(0), WaitEvent.timeout);
    writeSync(fifo, 'x');
    for (let i = 0; i < 3; i++) {
      assert.equal(await next(), WaitEvent.ready);
      assert.equal(words[ExitWord.token], PIPE);
    }
    readSync(fifo, Buffer.alloc(1));
    // An event that was found before the read may be left.
    let event = await next(0);
    if (event === WaitEvent.ready) event = await next(0);
    assert.equal(event, WaitEvent.timeout);
    watchFd(machine, fifo, PIPE + 1, { read: false, write: true });
    assert.equal(await next(), WaitEvent.ready);
    assert.equal(words[ExitWord.token], PIPE + 1);
    unwatchFd(machine, fifo);
    assert.equal(await next(0), WaitEvent.timeout);
  });

  it('returns no events of a descriptor that is watched for nothing, even when its other end is closed', async () => {
    const readEnd = openSync(join(dir, 'fifo'), constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      watchFd(machine, readEnd, PIPE, { read: true, write: false });
      writeSync(fifo, 'x');
      assert.equal(await next(), WaitEvent.ready);
      watchFd(machine, readEnd, PIPE, { read: false, write: false });
      closeSync(fifo);
      // One that was found before may be left.
      let event = await next(0);
      if (event === WaitEvent.ready) event = await next(0);
      assert.equal(event, WaitEvent.timeout);
      watchFd(machine, readEnd, PIPE + 1, { read: true, write: false });
      assert.equal(await next(), WaitEvent.ready);
      assert.equal(words[ExitWord.token], PIPE + 1);
      unwatchFd(machine, readEnd);
      assert.equal(await next(0), WaitEvent.timeout);
    } finally {
      closeSync(readEnd);
      fifo = openSync(join(dir, 'fifo'), 'r+');
    }
  });

  it('returns exits and ready descriptors in turn when there are always both', async () => {
    watchFd(machine, fifo, PIPE, { read: false, write: true });
    addNotifier(machine, { gpa: GPA, queue: 1, token: DOORBELL });
    resumeVcpus(machine);
    const seen = { exits: 0, pipe: 0, doorbells: 0 };
    // One that starved would never come to 50.
    while (Math.min(...Object.values(seen)) < 50) {
      const event = await next();
      if (event === WaitEvent.exit) seen.exits++;
      else if (words[ExitWord.token] === PIPE) seen.pipe++;
      else seen.doorbells++;
    }
  });

  it('returns to the event loop although a descriptor is always ready', async () => {
    watchFd(machine, fifo, PIPE, { read: false, write: true });
    // The loop has work when a thread of libuv answers.
    const found = stat(dir);
    let event: number = WaitEvent.ready;
    for (let i = 0; i < 1_000_000 && event === WaitEvent.ready; i++) event = wait(machine, 10_000);
    assert.equal(event, WaitEvent.loop);
    await found;
  });

  it('holds the answer to an exit until it is released', async () => {
    resumeVcpus(machine);
    assert.equal(await exit(), 1);
    const vcpu = holdExit(machine);
    assert.equal(await next(50), WaitEvent.timeout, 'the vCPU waits');
    releaseExit(machine, vcpu);
    assert.equal(await exit(), 2);
  });

  it('closes a machine with a held exit', async () => {
    resumeVcpus(machine);
    await exit();
    holdExit(machine);
    closeMachine(machine);
    assert.equal(wait(machine, -1), WaitEvent.dead);
  });

  it('raises an interrupt as often as asked, also before the vCPUs run', async () => {
    const irq = createIrq(machine, 5);
    for (let i = 0; i < 100_000; i++) raiseIrq(machine, irq);
    assert.throws(() => createIrq(machine, 4096), TypeError);
    assert.throws(() => raiseIrq(machine, irq + 1), TypeError);
  });
});
