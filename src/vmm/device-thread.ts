/**
 * The device thread of one machine: the Worker that has all device models and answers all vCPU exits.
 *
 * `wait()` returns an exit in the exit page, and the next call takes the answer from it. Requests and console input
 * arrive as messages. Console output and the end of the machine leave as messages.
 *
 * Invariants:
 * - Only `wait()` blocks.
 * - The state of vCPUs is read only while they are parked.
 * - The addon joins the vCPU threads before the Worker ends, whatever ends it.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { parentPort } from 'node:worker_threads';
import { LivesnapError, type PlainError } from '../errors.js';
import {
  attachDeviceThread,
  closeMachine,
  createIrq,
  EXIT_DATA_OFFSET,
  EXIT_PAGE_BYTES,
  ExitWord,
  holdExit,
  type KvmMachine,
  killMachine,
  machineIoctl,
  REASON_RUN_FAILED,
  raiseIrq,
  releaseExit,
  requestPause,
  resumeVcpus,
  setPostedPort,
  startVcpus,
  WaitEvent,
  wait,
} from '../native/kvm.js';
import { ConsoleCounters } from './console/console-counters.js';
import { ConsoleInput } from './console/console-input.js';
import { ConsoleOutput } from './console/console-output.js';
import type {
  DeviceThreadSetup,
  FromDeviceThread,
  PlainMachineEnd,
  ToDeviceThread,
} from './device-thread-messages.js';
import type { Bus } from './devices/bus.js';
import type { AccessSize, DeviceParts } from './devices/device.js';
import { LEGACY_DEVICES, machineDevices } from './devices/machine-devices.js';
import { Platform } from './devices/platform.js';
import { blocksOf } from './disk/disk-setup.js';
import { DiskDevices } from './disk-devices.js';
import { ExitReason, Ioctl, Msr } from './kvm/abi.js';
import { describeExit, describeTripleFault } from './kvm/exit-text.js';
import { failedInstruction } from './kvm/failed-instruction.js';
import { elapsedTime, wallClockNs } from './kvm/guest-time.js';
import { describeHost, type HostKvm } from './kvm/host.js';
import { finishInstruction, setDeadline } from './kvm/pvm.js';
import { getRegs, saveVcpus } from './kvm/vcpu-state.js';
import { createVm, enterKernel, type MemorySlot, restoreKvm } from './kvm/vm.js';
import { saveVm } from './kvm/vm-state.js';
import { decodeMachineState, MACHINE_STATE_VERSION, type SavedMachineState } from './machine-state.js';
import { GuestRam } from './memory/guest-memory.js';
import { Moment, type MomentParts, type MomentRequest } from './moment.js';
import { NetCounters } from './net/net-counters.js';
import { NativeNetLink } from './net/net-link.js';
import type { NetSetup } from './net/net-setup.js';
import { ReadyEvents } from './ready-events.js';
import { Timers } from './timers.js';
import { virtioNet } from './virtio/net.js';
import type { VirtioDescriptor } from './virtio/virtio-device.js';

/** How long output without a line end waits for more. */
const GATHER_MS = 1;
/** How long output waits before it is offered again to a busy main thread. */
const HELD_BACK_MS = 10;

/** The port that console output is written to: the first register of the console. */
const CONSOLE_PORT = LEGACY_DEVICES[0].base;

/** How long a pause waits for what the devices have begun, after the vCPUs are parked. */
const DRAIN_MS = 5;

const HANGING_DISK = 'a disk does not respond: the machine ends without waiting for it any longer';

const port = parentPort!;
const post = (message: FromDeviceThread): void => port.postMessage(message);

function plainError(error: unknown): PlainError {
  if (error instanceof LivesnapError) return error.toJSON();
  const { message, stack } = error as Error;
  post({ type: 'log', message: stack ?? message });
  return { code: 'MACHINE_FAILED', message: `the device thread failed: ${message}`, hint: null };
}

const netDevice = ({ name, mac, offloads, port, isStream, counters }: NetSetup): VirtioDescriptor =>
  virtioNet({
    name,
    mac,
    offloads,
    link: port === null ? null : new NativeNetLink(port, { isStream }),
    counters: new NetCounters(counters),
  });

class DeviceThread {
  readonly #host: HostKvm;
  readonly #machine: KvmMachine;
  readonly #events: ReadyEvents;
  readonly #timers = new Timers();
  readonly #cpus: number;
  readonly #platform: Platform;
  readonly #output: ConsoleOutput;
  readonly #input: ConsoleInput;
  readonly #exitPage = new Uint8Array(EXIT_PAGE_BYTES);
  readonly #words = new Uint32Array(this.#exitPage.buffer, 0, EXIT_DATA_OFFSET / 4);
  readonly #data = this.#exitPage.subarray(EXIT_DATA_OFFSET);
  /** The requests that are answered when the vCPUs are parked, by id. */
  readonly #pausing: number[] = [];
  /** The vCPUs are parked, and the pause waits for the devices. */
  #isDraining = false;
  readonly #drainLimit = this.#timers.create(() => this.#paused());
  readonly #momentParts: MomentParts;
  /** The moment of a save that is in progress, and the request for it. */
  #moment: { readonly id: number; readonly moment: Moment } | null = null;
  /** When the pause for a moment began. */
  #pausedAtMs = 0;
  #isPosting = false;
  #end: PlainMachineEnd | null = null;
  readonly #disks: DiskDevices | null;
  readonly #holdsEnd: boolean;
  /** The end to come, while the main thread saves the disks. */
  #heldEnd: PlainMachineEnd | null = null;
  /** The vCPUs are parked and the devices frozen. */
  #isPaused = true;

  constructor({ slots, cpus, devices, disks, nets, holdsEnd, start, consoleCounters }: DeviceThreadSetup) {
    const counters = new ConsoleCounters(consoleCounters);
    this.#output = new ConsoleOutput(
      (bytes, missedBytes) => post({ type: 'console', bytes, missedBytes }),
      () => counters.outputMessages,
    );
    this.#input = new ConsoleInput(
      (bytes) => this.#platform.console.offerInput(bytes),
      (bytes) => counters.addInputBytes(bytes),
    );
    this.#host = describeHost();
    this.#cpus = cpus;
    const state = 'state' in start ? decodeMachineState(start.state) : null;
    const time = elapsedTime('clock' in start ? start.clock : 'host', state?.vm.realtimeNs, wallClockNs());
    this.#machine = createVm(this.#host, cpus, slots, state !== null);
    this.#events = new ReadyEvents(this.#machine);
    const written = disks?.disks.map(({ sizeBytes, written }) => ({ blocks: blocksOf(sizeBytes), written }));
    this.#momentParts = { machine: this.#machine, slots, disks: written ?? [] };
    this.#holdsEnd = holdsEnd;
    try {
      this.#disks = disks && new DiskDevices(disks, (problem) => post({ type: 'stalled', problem }));
      attachDeviceThread(this.#machine, this.#exitPage);
      if (state) restoreKvm(this.#machine, this.#host, state, time);
      else if ('boot' in start) enterKernel(this.#machine, this.#host, { cpus, slots, ...start });
      const parts = this.#deviceParts(slots, Number(time.heldBackNs / 1_000_000n));
      const list = machineDevices(devices, {
        disks: this.#disks?.descriptors ?? [],
        nets: nets.map(netDevice),
      });
      this.#platform = state ? Platform.restore(parts, state.devices, list) : Platform.create(parts, list);
      this.#disks?.start(parts);
      this.#updatePosting();
      startVcpus(this.#machine);
    } catch (error) {
      closeMachine(this.#machine);
      throw error;
    }
    post({ type: 'ready', machine: this.#machine });
  }

  #deviceParts(slots: readonly MemorySlot[], heldBackMs: number): DeviceParts {
    return {
      memory: new GuestRam(slots),
      clock: { nowMs: Date.now, heldBackMs },
      irqLine: (gsi) => {
        // struct kvm_irq_level
        const argument = new Uint8Array(8);
        const view = new DataView(argument.buffer);
        view.setUint32(0, gsi, true);
        return {
          set: (level) => {
            view.setUint32(4, level ? 1 : 0, true);
            machineIoctl(this.#machine, Ioctl.IRQ_LINE, argument);
          },
        };
      },
      edgeIrq: (gsi) => {
        const irq = createIrq(this.#machine, gsi);
        return { pulse: () => raiseIrq(this.#machine, irq) };
      },
      onDoorbell: (gpa, queue, rung) => this.#events.onDoorbell(gpa, queue, rung),
      watch: (fd, events, ready) => this.#events.watch(fd, events, ready),
      timer: (due) => this.#timers.create(due),
      holdAccess: () => {
        const vcpu = holdExit(this.#machine);
        return { release: () => releaseExit(this.#machine, vcpu) };
      },
      log: (line) => post({ type: 'log', message: line }),
      onConsoleOutput: (bytes) => this.#output.write(bytes),
      onConsoleDrained: () => this.#input.drain(),
      onReset: () => this.#guestEnds({ kind: 'reset' }),
      onPowerOff: () => this.#guestEnds({ kind: 'halted' }),
    };
  }

  /** The first end counts. */
  #finish(end: PlainMachineEnd): void {
    this.#end ??= end;
  }

  /**
   * The guest ends the machine, or KVM cannot run it any further. If disks are to be saved first, the machine is paused
   * until the main thread stops it.
   */
  #guestEnds(end: PlainMachineEnd): void {
    if (!this.#holdsEnd) this.#finish(end);
    else if (this.#heldEnd === null) {
      this.#heldEnd = end;
      this.#pause();
    }
  }

  /** Answers exits and messages until the machine ends. Then sends the last output and the end. */
  async run(): Promise<void> {
    port.on('message', (message: ToDeviceThread) => this.#receive(message));
    while (this.#end === null) {
      const event = wait(this.#machine, this.#timeoutMs());
      if (event === WaitEvent.exit) this.#answer();
      else if (event === WaitEvent.ready) this.#events.dispatch(this.#words[ExitWord.token]!);
      else if (event === WaitEvent.posted) this.#accessPort();
      else if (event === WaitEvent.loop) await nextTurn();
      else if (event === WaitEvent.timeout) this.#output.flush();
      else if (event === WaitEvent.parked) this.#parked();
      else this.#finish({ kind: 'stopped' });
      this.#timers.run();
      if (this.#isDraining && this.#platform.isIdle) this.#paused();
    }
    this.#output.flushAll();
    killMachine(this.#machine);
    if (this.#disks?.close() === false) post({ type: 'log', message: HANGING_DISK });
    closeMachine(this.#machine);
    post({ type: 'end', end: this.#end });
  }

  #receive(message: ToDeviceThread): void {
    if (message.op === 'begin') return;
    if (message.op === 'input') {
      this.#input.write(message.bytes);
      return;
    }
    try {
      this.#perform(message);
    } catch (error) {
      post({ type: 'reply', id: message.id, error: plainError(error) });
    }
  }

  #perform(request: Exclude<ToDeviceThread, { op: 'begin' | 'input' }>): void {
    switch (request.op) {
      case 'pause':
        if (this.#isPaused) break;
        this.#pausing.push(request.id);
        this.#pause();
        return;
      case 'resume':
        resumeVcpus(this.#machine);
        this.#resumed();
        break;
      case 'moment':
        this.#beginMoment(request.id, request);
        return;
      case 'pressPowerButton':
        post({ type: 'reply', id: request.id, value: this.#platform.pressPowerButton() });
        return;
      case 'stop':
        this.#finish(this.#heldEnd ?? { kind: 'stopped' });
        break;
      case 'readBlocks':
        this.#disks!.readBlocks(request.disk, request.blocks, (error) => {
          const reply = { type: 'reply', id: request.id } as const;
          post(error === null ? reply : { ...reply, error: error.toJSON() });
        });
        return;
      case 'findData':
        this.#disks!.findData(request.disk, request.bits, () => post({ type: 'reply', id: request.id }));
        return;
      case 'thawDisks':
        this.#disks?.thaw();
        break;
    }
    post({ type: 'reply', id: request.id });
  }

  /** When a timer is due or waiting output is offered again; -1 for neither. */
  #timeoutMs(): number {
    const timerMs = this.#timers.waitMs;
    if (this.#output.isEmpty) return timerMs;
    const outputMs = this.#output.isHeldBack ? HELD_BACK_MS : GATHER_MS;
    return timerMs < 0 ? outputMs : Math.min(timerMs, outputMs);
  }

  #pause(): void {
    this.#platform.suspend();
    requestPause(this.#machine);
  }

  /** The vCPUs run already while the devices look at their queues: what they ring or access waits for this thread. */
  #resumed(): void {
    this.#isPaused = false;
    this.#platform.resume();
  }

  #parked(): void {
    this.#output.flushAll();
    this.#moment?.moment.parked();
    this.#isDraining = true;
    this.#drainLimit.set(DRAIN_MS);
  }

  /** What is unfinished now is saved as such. */
  #paused(): void {
    this.#isDraining = false;
    this.#drainLimit.set(null);
    this.#platform.freeze();
    this.#isPaused = true;
    if (this.#heldEnd !== null) post({ type: 'poweredOff' });
    for (const id of this.#pausing.splice(0)) post({ type: 'reply', id });
    this.#endMoment();
  }

  #beginMoment(id: number, request: MomentRequest): void {
    const moment = new Moment(request, this.#momentParts);
    this.#moment = { id, moment };
    if (this.#isPaused) {
      moment.parked();
      this.#endMoment();
    } else {
      this.#pausedAtMs = performance.now();
      this.#pause();
    }
  }

  #endMoment(): void {
    if (this.#moment === null) return;
    const { id, moment } = this.#moment;
    this.#moment = null;
    try {
      const mayCapture = this.#heldEnd === null;
      const taken = moment.capture(
        mayCapture,
        () => this.#state(),
        (frozen) => {
          this.#disks?.freeze(frozen);
          if (moment.resumes) resumeVcpus(this.#machine);
        },
      );
      const value = { ...taken, pauseMs: performance.now() - this.#pausedAtMs };
      if (moment.resumes && taken.captured !== null) this.#resumed();
      post({ type: 'reply', id, value });
    } catch (error) {
      post({ type: 'reply', id, error: plainError(error) });
    }
  }

  /** The devices come first: they hold what the last exit left, and reading KVM's state does not change them. */
  #state(): SavedMachineState {
    const devices = this.#platform.save();
    const vcpus = saveVcpus(this.#machine, this.#host.kind, this.#cpus);
    return { version: MACHINE_STATE_VERSION, vcpus, vm: saveVm(this.#machine), devices };
  }

  #answer(): void {
    const words = this.#words;
    const reason = words[ExitWord.reason];
    if (reason === ExitReason.IO) {
      this.#accessPort();
    } else if (reason === ExitReason.MMIO) {
      this.#access(this.#platform.mmio, words[ExitWord.sizeBytes] as AccessSize, 1);
    } else if (reason === ExitReason.X86_WRMSR && words[ExitWord.addressLow] === Msr.IA32_TSC_DEADLINE) {
      const deadline = BigInt(words[ExitWord.dataLow]!) | (BigInt(words[ExitWord.dataHigh]!) << 32n);
      setDeadline(this.#machine, words[ExitWord.vcpu]!, deadline);
    } else {
      this.#answerRare(reason!);
    }
  }

  #accessPort(): void {
    const words = this.#words;
    this.#access(this.#platform.pio, words[ExitWord.sizeBytes] as AccessSize, words[ExitWord.count]!);
    this.#updatePosting();
  }

  /** Lets vCPUs post console output without an exit while a write of the port only sends. */
  #updatePosting(): void {
    const { sendsOnly } = this.#platform.console;
    if (sendsOnly === this.#isPosting) return;
    this.#isPosting = sendsOnly;
    setPostedPort(this.#machine, sendsOnly ? CONSOLE_PORT : null);
  }

  #access(bus: Bus, size: AccessSize, count: number): void {
    const words = this.#words;
    const address = words[ExitWord.addressLow]! + words[ExitWord.addressHigh]! * 2 ** 32;
    if (words[ExitWord.isWrite] === 1) bus.writeItems(address, size, count, this.#data, 0);
    else bus.readItems(address, size, count, this.#data, 0);
    this.#platform.flush();
  }

  /** Answers exits that end the machine, or that only a PVM host has. */
  #answerRare(reason: number): void {
    const vcpu = this.#words[ExitWord.vcpu]!;
    if (reason === ExitReason.SHUTDOWN) {
      const { rip } = getRegs(this.#machine, vcpu);
      post({ type: 'log', message: describeTripleFault(this.#host.kind, vcpu, rip) });
      this.#guestEnds({ kind: 'reset' });
      return;
    }
    const suberror = this.#words[ExitWord.suberror]!;
    const instruction =
      reason === ExitReason.INTERNAL_ERROR
        ? failedInstruction(suberror, this.#words[ExitWord.count]!, this.#data)
        : null;
    if (instruction && this.#host.kind === 'pvm' && finishInstruction(this.#machine, vcpu, instruction))
      return;
    const message = describeExit(vcpu, getRegs(this.#machine, vcpu).rip, {
      reason,
      runFailed: reason === REASON_RUN_FAILED,
      detail: this.#words[ExitWord.dataLow]!,
      suberror,
      instruction,
    });
    this.#guestEnds({ kind: 'failed', error: { code: 'MACHINE_FAILED', message, hint: null } });
  }
}

async function serve(first: ToDeviceThread): Promise<void> {
  try {
    if (first.op !== 'begin') throw new TypeError(`the first message is ${first.op}`);
    await new DeviceThread(first.setup).run();
  } catch (error) {
    post({ type: 'end', end: { kind: 'failed', error: plainError(error) } });
  }
  port.close();
}

port.once('message', (first: ToDeviceThread) => void serve(first));
